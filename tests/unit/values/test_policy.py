"""Memory policies are read as numa_maps shows them, and follow a node map."""

from __future__ import annotations

import pytest

from schedhook.values.policy import Policy, PolicyCount, PolicyFlag, PolicyMode
from schedhook.values.sets import NodeSet


@pytest.mark.parametrize(
    ("text", "mode", "flags", "nodes"),
    [
        ("default", PolicyMode.DEFAULT, PolicyFlag(0), ""),
        ("local", PolicyMode.LOCAL, PolicyFlag(0), ""),
        ("prefer:1", PolicyMode.PREFERRED, PolicyFlag(0), "1"),
        ("bind=static:0-1", PolicyMode.BIND, PolicyFlag.STATIC, "0-1"),
        ("interleave=relative:0,2", PolicyMode.INTERLEAVE, PolicyFlag.RELATIVE, "0,2"),
        ("bind=static|balancing:3", PolicyMode.BIND, PolicyFlag.STATIC | PolicyFlag.BALANCING, "3"),
        ("prefer (many)=static:0-1", PolicyMode.PREFERRED_MANY, PolicyFlag.STATIC, "0-1"),
        ("weighted interleave:0-3", PolicyMode.WEIGHTED_INTERLEAVE, PolicyFlag(0), "0-3"),
    ],
)
def test_the_text_of_numa_maps(text: str, mode: PolicyMode, flags: PolicyFlag, nodes: str) -> None:
    policy = Policy.parse(text)
    assert policy == Policy(mode=mode, flags=flags, nodes=NodeSet.parse(nodes))
    assert str(policy) == text


@pytest.mark.parametrize("text", ["unknown", "", "bind=sticky:0", "bind:x"])
def test_any_other_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Policy.parse(text)


@pytest.mark.parametrize("last", ["1", "10-1", "1-"])
def test_the_node_at_which_the_kernel_cut_the_text_off_is_not_certain(last: str) -> None:
    head = "prefer (many)=static:"
    nodes = [str(node) for node in range(0, 40, 2)]
    text = (head + ",".join(nodes))[: 62 - len(last)].rpartition(",")[0]
    text += "," * (63 - len(text) - len(last)) + last
    assert len(text) == 63
    assert Policy.parse(text).nodes <= set(range(0, 40, 2))
    assert 1 not in Policy.parse(text).nodes


def test_the_nodes_of_a_policy_follow_a_map() -> None:
    policy = Policy.parse("bind=static:0,3")
    assert str(policy.mapped({0: 2, 1: 0})) == "bind=static:2-3"


@pytest.mark.parametrize(
    ("policy", "before", "after", "result"),
    [
        # By rank: what is seen if 0-3 becomes 1-3.
        ("bind:3", "0-3", "1-3", "bind:1"),
        ("bind:1", "0-3", "1-3", "bind:2"),
        ("interleave:0,2", "0-3", "1-3", "interleave:1,3"),
        ("weighted interleave:0-1", "0-1", "2-3", "weighted interleave:2-3"),
        ("bind=relative:1", "0-1", "0,3", "bind=relative:3"),
        ("bind:2", "0-1", "2-3", "bind:2"),
        ("bind=static:0-1", "0-3", "1-3", "bind=static:1"),
        ("bind=static:0", "0-3", "1-3", "bind=static:1-3"),
        ("prefer:0", "0-3", "1-3", "prefer:0"),
        ("prefer (many):0", "0-3", "1-3", "prefer (many):0"),
        ("local", "0-3", "1-3", "local"),
    ],
)
def test_what_the_kernel_makes_of_it_when_the_cpuset_changes(
    policy: str, before: str, after: str, result: str
) -> None:
    sets = NodeSet.parse(before), NodeSet.parse(after)
    assert str(Policy.parse(policy).rebound(*sets)) == result


def test_what_policies_govern_in_words() -> None:
    assert str(PolicyCount(threads=1, bytes=2 << 20)) == "1 thread and 2.0 MiB"
    assert str(PolicyCount(threads=3)) == "3 threads"
    assert str(PolicyCount(bytes=1 << 20)) == "1.0 MiB"
