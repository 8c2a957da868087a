"""Lists of hosts in Slurm's format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts


def test_lists_expand_as_slurms_own_command_expands_them() -> None:
    """As recorded from `scontrol show hostnames` of 22.05."""
    found = expand_hosts("n[1-3,07,10-11],r[1-2]n[08-09],login")
    written = "n1 n2 n3 n07 n10 n11 r1n08 r1n09 r2n08 r2n09 login"
    assert found == tuple(written.split())
    assert expand_hosts("(null)") == expand_hosts(" ") == ()


@pytest.mark.parametrize(
    "text", ["n[1", "n]1[", "n[3-1]", "n[a]", "n[1-99999999]", "n m", "n[[1]]"]
)
def test_malformed_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a list|not a number|runs backwards"):
        expand_hosts(text)


@given(st.lists(st.integers(0, 300), min_size=1, unique=True), st.sampled_from(["n", "rack-2-n"]))
def test_every_list_of_numbers_expands_to_itself(numbers: list[int], prefix: str) -> None:
    text = f"{prefix}[{CpuSet(numbers)}]"
    assert expand_hosts(text) == tuple(f"{prefix}{number}" for number in sorted(numbers))
