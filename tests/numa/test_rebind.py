"""`--policies rebind`: what processes allocate after a relocation comes from the new nodes.

The programs say themselves, by get_mempolicy(2), on which nodes they got memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.control.rebinding import Rebinding
from schedhook.values.nodemap import parse_map
from schedhook.values.policy import PolicyFlag, PolicyMode
from tests.numa.bound import (
    ONLY_X86,
    THREADS,
    Run,
    bound,
    joining,
    nodes_of,
    relocate,
    skip_without,
)
from tests.numa.jobs import cgroup

pytestmark = [pytest.mark.nodes(4), ONLY_X86]

MODES = ["BIND", "PREFERRED", "PREFERRED_MANY", "INTERLEAVE", "WEIGHTED_INTERLEAVE"]
FLAGS = {"plain": PolicyFlag(0), "static": PolicyFlag.STATIC, "relative": PolicyFlag.RELATIVE}


@pytest.mark.short(7)
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("mode", MODES)
def test_the_next_allocation_comes_from_the_new_nodes(mode: str, flags: str, run: Run) -> None:
    """That of each thread and of a new process, in an area of its own and in shared memory."""
    skip_without(PolicyMode[mode])
    number = PolicyMode[mode] | FLAGS[flags]
    old, new = ({0}, {2}) if mode == "PREFERRED" else ({0, 1}, {2, 3})
    with ExitStack() as stack:
        asked = {"none": ["threads", "fork"], "private": ["area"], "shared": ["area"]}
        programs = {area: stack.enter_context(bound(number, old, area)) for area in asked}

        def nodes() -> list[set[int]]:
            return [nodes_of(programs[area].ask(line)) for area in asked for line in asked[area]]

        assert all(found <= old for found in nodes())
        report = relocate(run, list(programs.values()), "0:2,1:3")
        assert report["policies_left"] == {"threads": 0, "bytes": 0}
        assert all(found <= new for found in nodes())
        if "INTERLEAVE" in mode:
            assert nodes() == [new] * 4
        mask = sum(1 << node for node in new)
        assert programs["none"].ask("policies").split() == [f"{number}/{mask}"] * THREADS


def test_the_configuration_says_rebind(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[relocation]\npolicies = "rebind"\n')
    with bound(PolicyMode.BIND, {0}) as program:
        run("relocate", "--pid", program.pid, "--map", "0:2", "--config", config)
        assert nodes_of(program.ask("threads")) == {2}


@pytest.mark.parametrize("area", ["none", "private", "shared"])
def test_nodes_that_exchange_their_memory(area: str, run: Run) -> None:
    """Each policy is rebound once, also that of memory which two processes share."""
    with (
        cgroup("schedhook-test-rebind") as group,
        bound(PolicyMode.BIND, {0}, area, prefix=joining(group)) as one,
        bound(PolicyMode.BIND, {1}, area, prefix=joining(group)) as other,
    ):
        words = ("relocate", "--cgroup", group, "--map", "0:1,1:0", "--policies", "rebind")
        status, report = run(*words)
        assert status == 0, report
        assert report["policies_left"] == {"threads": 0, "bytes": 0}
        ask = "threads" if area == "none" else "area"
        assert nodes_of(one.ask(ask)) == {1}
        assert nodes_of(other.ask(ask)) == {0}


def test_nodes_that_the_map_does_not_name_stay(run: Run) -> None:
    with bound(PolicyMode.INTERLEAVE, {0, 3}) as program:
        relocate(run, [program], "0:1")
        assert nodes_of(program.ask("threads")) == {1, 3}


def test_what_was_rebound_can_be_undone() -> None:
    with (
        bound(PolicyMode.BIND, {0}) as program,
        bound(PolicyMode.BIND, {0}, "private") as other,
        NativeBackend().attach(program.pid) as target,
        NativeBackend().attach(other.pid) as with_area,
    ):
        rebinding = Rebinding(parse_map("0:2"))
        rebinding.follow([target, with_area])
        assert nodes_of(program.ask("threads")) == {2}
        assert nodes_of(other.ask("area")) == {2}
        rebinding.undo()
        assert nodes_of(program.ask("threads")) == {0}
        assert nodes_of(other.ask("area")) == {0}
