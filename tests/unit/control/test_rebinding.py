"""Which policies follow a node map, and how. Only node 0 is real here; tests/numa has the rest."""

from __future__ import annotations

import pytest

from schedhook.backends.native import _core
from schedhook.backends.native.backend import NativeBackend
from schedhook.control.kernel_policies import KernelPolicy
from schedhook.control.process_rebinding import Change, Ledger
from schedhook.control.rebinding import Rebinding
from schedhook.control.threads import Thread
from schedhook.values.model import NodeMap
from schedhook.values.policy import PolicyFlag, PolicyMode
from schedhook.values.sets import NodeSet
from tests.unit.control.talking import talking

ALLOWED = NodeSet.parse("0-3")
NO_NODE = 1000


def policy(nodes: str, flags: int = 0, mode: int = PolicyMode.BIND) -> KernelPolicy:
    return KernelPolicy(mode | flags, NodeSet.parse(nodes))


@pytest.mark.parametrize(
    ("old", "moves", "new"),
    [
        ("0", {0: 2}, "2"),
        ("0-1", {0: 2}, "1-2"),
        ("0-1", {0: 1, 1: 0}, "0-1"),
        ("0,2", {0: 1, 1: 3}, "1-2"),
        ("0-1", {0: 2, 1: 2}, "2"),
        ("3", {0: 2}, "3"),
        ("", {0: 2}, ""),
    ],
)
@pytest.mark.parametrize("flags", [0, PolicyFlag.STATIC, PolicyFlag.BALANCING])
def test_old_nodes_become_new_ones(old: str, moves: dict[int, int], new: str, flags: int) -> None:
    assert policy(old, flags).follow(moves, ALLOWED) == policy(new, flags)


@pytest.mark.parametrize(
    ("old", "moves", "allowed", "new"),
    [
        ("0", {0: 2}, "0-3", "2"),
        ("0", {2: 3}, "2-3", "1"),
        ("0-1", {2: 3}, "2-3", "1"),
        ("5", {1: 0}, "0-3", "0"),  # the sixth of four nodes is the second
        ("1", {2: 3}, "2-3", "1"),
        ("0", {2: 0}, "2-3", "0"),  # not in its cpuset
        ("0", {0: 2}, "", "0"),
    ],
)
def test_relative_nodes_are_ranks_in_the_cpuset(
    old: str, moves: dict[int, int], allowed: str, new: str
) -> None:
    relative = PolicyFlag.RELATIVE
    followed = policy(old, relative).follow(moves, NodeSet.parse(allowed))
    assert followed == policy(new, relative)


def test_what_a_new_thread_may_have_inherited() -> None:
    ledger = Ledger({0: 1, 1: 0}, overlaps=True)
    ledger.changes.append(Change(Thread(1, 1, 1), None, policy("0"), policy("1")))
    assert ledger.was_inherited(policy("1"))
    assert not ledger.was_inherited(policy("0"))


@pytest.mark.skipif(not _core.remote_restorers(), reason="not implemented for this architecture")
def test_a_policy_that_the_kernel_does_not_set() -> None:
    """The thread keeps its own, and the notes have the reason."""
    bound = ("numactl", "--membind=0")
    with (
        talking("awkward", "plain", prefix=bound) as program,
        NativeBackend().attach(program.pid) as target,
    ):
        rebinding = Rebinding(NodeMap(pairs={NO_NODE: 0}))
        rebinding.follow([target])
        assert rebinding.notes() == []
        rebinding = Rebinding(NodeMap(pairs={0: NO_NODE}))
        rebinding.follow([target])
        (note,) = rebinding.notes()
        assert f"policies of process {program.pid} stay as they are" in note
        assert f"the kernel does not set its policy to node {NO_NODE}: Invalid argument" in note
        assert str(target.thread_policies(target.areas())[program.pid]) == "bind:0"
        rebinding.undo()
        assert program.ask() == "fine"
