"""Parsers on invalid input: they raise only documented errors, in bounded time and memory.

`make fuzz` tries a million inputs each, guided by coverage; its finds are run here.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from tests.unit.fuzz.targets import TARGETS

SEPARATOR = b"\n====\n"
DEEP = b"[" * 100_000

FOUND = [
    ("sets", b"0-65536," * 4000),
    ("sets", b"9" * 5000),
    (
        "areas",
        b"00001000 default N0=9 kernelpagesize_kB=4" + SEPARATOR + b"00001000-00001000 r 0 0:0 0",
    ),
    ("areas", b"00001000 default N0=1 kernelpagesize_kB=4" + SEPARATOR + b"00001000-00002000"),
    ("areas", b"00001000 default N0=1 kernelpagesize_kB=4" + SEPARATOR + b"x-y\n00000000-z"),
    ("areas", SEPARATOR * 3 + b"Rss: " + b"9" * 5000 + b" kB"),
    ("cgroups", b"30 24 0:26 / rw - cgroup2 x rw" + SEPARATOR + b"0::/"),
    ("cgroups", b"30 24 0:26 / mnt rw - cgroup2 x rw" + SEPARATOR + b"0::/"),
    ("cgroups", b"30 24 0:26 / //mnt rw - cgroup2 x rw" + SEPARATOR + b"0::/"),
    ("cgroups", SEPARATOR + b"garbage"),
    ("cgroups", SEPARATOR * 2 + b"x"),
    ("cgroups", SEPARATOR * 3 + b"anon N0=1\n\nfile N0"),
    ("cgroups", SEPARATOR * 4 + b"1 x"),
    ("status", b"7 (a) " + b"S " * 30),
    ("status", b"State:\tS\nName:\tx\nThreads:\t1\nUid:\n"),
    ("topology", b": 1 kB"),
    ("topology", b"MemTotal: " + b"9" * 5000 + b" kB"),
    ("topology", b"Node 0, zone\n  spanned " + b"9" * 5000),
    ("hosts", b"n" + b"[0-99999]" * 400),
    ("hosts", b"n[" + b"0-99999," * 500 + b"1]"),
    ("hosts", b"n[" + b"0" * 4000 + b"-99999]"),
    ("slurm-json", DEEP),
    ("slurm-json", b'{"jobs": [7]}'),
    ("slurm-json", b'{"jobs": [{"job_id": 7, "user_id": 1e999}]}'),
    (
        "slurm-json",
        TARGETS["slurm-json"].seeds[1].split(SEPARATOR)[0]
        + SEPARATOR
        + b"NodeName=n1 CoresPerSocket=1 ThreadsPerCore=99999999999",
    ),
    ("slurm-text", b"7|1000|alice| |n1"),
    ("pyslurm", DEEP),
    ("pyslurm", b'{"job": "7", "user_id": 1e999}'),
    ("pyslurm", b'{"job": "7", "user_id": 1, "user_name": "a", "state": ""}'),
    ("pbs-event", DEEP),
    ("pbs-event", b'{"job": {"id": "7", "euser": "a\\u0000"}}'),
    ("pbs-event", b'{"job": {"id": "7"}, "host": "\\ud800"}'),
    ("pbs-notes", DEEP),
    ("pbs-notes", b'{"sessions": [1e999]}'),
    ("journal", TARGETS["journal"].seeds[0].replace(b"0-3", b"0-")),
    ("journal", TARGETS["journal"].seeds[0].replace(b'{"environ"', b"{environ")),
    ("journal", TARGETS["journal"].seeds[0].replace(b'{"leaving": "0-1"}', b"[]")),
    ("journal", TARGETS["journal"].seeds[0].replace(b'{"outcome"', DEEP)),
    ("journal", TARGETS["journal"].seeds[0].replace(b"#5.5", b"x")),
    ("config", b"x = " + DEEP),
    ("config", b"[relocation]\ncall_ms = 1" + b"0" * 400),
]


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_fuzzing_has_found(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_seeds_with_holes(name: str, data: st.DataObject) -> None:
    """Valid inputs, cut, repeated, and with other bytes in between."""
    text = data.draw(st.sampled_from(TARGETS[name].seeds))
    for _ in range(data.draw(st.integers(1, 3))):
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        other = st.sampled_from((b"", b"\n", b"0", b"-", b"9" * 30, b"\0", b"\xff", SEPARATOR))
        middle = data.draw(other | st.binary(max_size=8) | st.just(text[first:last] * 2))
        text = text[:first] + middle + text[last:]
    TARGETS[name].run(text)


def test_a_list_that_repeats_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="too often"):
        NodeSet.parse("0-65536," * 4000)
    assert len(NodeSet.parse("0-65536")) == 65537


def test_a_list_of_too_many_hosts_is_refused() -> None:
    for text in ("n[0-99999][0-99999]", "n[0-99999],m[0-99999]"):
        with pytest.raises(ValueError, match="more than"):
            expand_hosts(text)
    assert len(expand_hosts("n[0-999][0-9]")) == 10_000
