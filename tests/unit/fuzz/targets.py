"""The parsers of untrusted text, each with the errors that its documentation allows.

A target takes any bytes. Any exception is a bug; so is an input of a few kilobytes that takes much
time or memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from schedhook.agent.events import read_event
from schedhook.backends.simulated import four_nodes
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.host import (
    _cgroup_files,
    _sysfs,
    areas,
    cgroups,
    frames,
    hierarchies,
    mounts,
    processes,
    reclaim,
    smaps,
    topology,
)
from schedhook.host._proc import stat_fields
from schedhook.journal.columns import json_object
from schedhook.journal.journal import Journal
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import read_profile
from schedhook.roles.notes import MemoryNotes
from schedhook.values.config import parse_config
from schedhook.values.errors import ConfigError, SchedhookError, UsageError
from schedhook.values.model import MemoryKind
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.notes import FENCE, REPLACING, TOLD, PbsNotes
from schedhook_plugins.schedulers.pbs.scheduler import PbsScheduler
from schedhook_plugins.schedulers.pbs.vnodes import nodes_on_host, parse_exec_vnode
from schedhook_plugins.schedulers.slurm import answers as slurm_answers
from schedhook_plugins.schedulers.slurm import cgroups as slurm_cgroups
from schedhook_plugins.schedulers.slurm import names as slurm_names
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.scheduler import Slurm

_NOWHERE = Path("/nowhere")
_SEPARATOR = b"\n====\n"
"""Separates the files of a target that reads several."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and its seeds."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _files(data: bytes, *names: str) -> dict[str, bytes]:
    parts = data.split(_SEPARATOR)
    return dict(zip(names, [*parts, *[b""] * len(names)], strict=False))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def read_sets(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        found = NodeSet.parse(_text(data))
        assert NodeSet.parse(str(found)) == found
        assert CpuSet.parse(f" {found} ") == found


def read_areas(data: bytes) -> None:
    files = _files(data, "numa_maps", "maps", "mountinfo", "smaps")

    def read(_pid: int, name: str, _root: Path) -> bytes:
        return files[name]

    with (
        mock.patch.object(areas, "read", read),
        mock.patch.object(smaps, "read", read),
        mock.patch.object(areas, "is_kernel_thread", lambda *_: False),
        mock.patch.object(areas, "live_task", lambda *_: 1),
        contextlib.suppress(SchedhookError),
    ):
        for many in (0, sys.maxsize):
            with mock.patch.object(areas, "_MANY", many):
                for area in areas.read_areas(1, resident_only=False):
                    assert area.kind in MemoryKind
        smaps.read_pss(1)


def read_cgroups(data: bytes) -> None:
    files = _files(data, "mountinfo", "cgroup", "cpuset", "procs")

    def text(_: Path) -> str | None:
        return files["cpuset"].decode("ascii", "replace").strip()

    with (
        mock.patch.object(_cgroup_files, "read_text", text),
        mock.patch.object(
            hierarchies, "read_mounts", lambda _: mounts.parse_mountinfo(files["mountinfo"])
        ),
        mock.patch.object(cgroups, "_is_cgroup", lambda _: True),
        mock.patch.object(cgroups, "read", lambda *_: files["cgroup"]),
        mock.patch.object(Path, "read_bytes", lambda _: files["procs"]),
    ):
        with contextlib.suppress(SchedhookError):
            cgroups.cgroup_of(1, _NOWHERE)
        with contextlib.suppress(UsageError):
            cgroups.resolve_cgroup(_text(data[:200]), _NOWHERE)
        cgroup = cgroups.Cgroup(path=_NOWHERE / "a", version=2, mount=_NOWHERE)
        for reader in (
            cgroups.effective_cpus,
            cgroups.effective_nodes,
            cgroups.configured_cpus,
            cgroups.frozen,
            lambda group: cgroups._pids_in(group.path, _NOWHERE),
        ):
            with contextlib.suppress(SchedhookError):
                reader(cgroup)


def read_status(data: bytes) -> None:
    with mock.patch.object(processes, "read", lambda *_: data):
        with contextlib.suppress(SchedhookError):
            processes.read_status(1)
        processes.read_command(1)
    with (
        mock.patch.object(processes, "stat_fields", lambda *_: _stat(data)),
        contextlib.suppress(SchedhookError),
    ):
        processes.read_identity(1)
    with (
        mock.patch.object(Path, "read_bytes", lambda _: data),
        contextlib.suppress(SchedhookError),
    ):
        slurm_cgroups.read_process(1, _NOWHERE)


def _stat(data: bytes) -> list[bytes]:
    with mock.patch("schedhook.host._proc.read", lambda *_: data):
        return stat_fields(1, _NOWHERE)


def read_topology(data: bytes) -> None:
    with (
        mock.patch.object(_sysfs, "read_text", lambda _: data.decode("ascii", "replace")),
        mock.patch.object(reclaim, "read_text", lambda _: data.decode("ascii", "replace")),
        mock.patch.object(
            _sysfs, "find_directories", lambda _: ["node0", "node4", "hugepages-4kB"]
        ),
        contextlib.suppress(SchedhookError),
    ):
        topology.read_topology()
    with mock.patch.object(Path, "read_text", lambda *_: data.decode("ascii", "replace")):
        for first, last, node in frames.node_spans():
            assert first < last
            assert node >= 0


def read_exec_vnode(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        nodes_on_host(parse_exec_vnode(_text(data)), "n1")


def read_hosts(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(expand_hosts(_text(data))) <= 100_000


def read_slurm_json(data: bytes) -> None:
    with contextlib.suppress(slurm_answers.Unreadable):
        slurm_answers.jobs_in_json(data.decode("utf-8", "replace"))


def read_slurm_text(data: bytes) -> None:
    with contextlib.suppress(slurm_answers.Unreadable):
        slurm_answers.jobs_in_squeue(data.decode("utf-8", "replace"))


def read_pyslurm(data: bytes) -> None:
    with contextlib.suppress(slurm_answers.Unreadable):
        slurm_answers.job_in_pyslurm(data.decode("utf-8", "replace"))


def read_job_name(data: bytes) -> None:
    text, _, alias = data.decode("utf-8", "replace").partition("\n")
    with contextlib.suppress(UsageError):
        slurm_names.resolve(text, {"38": alias, "51": "50+1", "9": ""})


_ADAPTERS = {"slurm": Slurm(_NOWHERE), "pbs": PbsScheduler(_NOWHERE)}


def read_message(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        message = parse_message(data)
        event = read_event(message, _ADAPTERS.get(message.scheduler, _ADAPTERS["pbs"]))
        # As the journal writes it.
        for word in (event.scheduler, event.point, event.job, event.host):
            word.encode()


def read_pbs_event(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        event = _ADAPTERS["pbs"].read_event("attach", {}, data)
        event.host.encode()


def read_pbs_notes(data: bytes) -> None:
    notes = MemoryNotes()
    for key in (TOLD, FENCE, REPLACING):
        notes.set("7", key, _text(data))
    kept = PbsNotes(lambda: notes)
    kept.told("7"), kept.fence("7"), kept.replacing("7")


def read_config(data: bytes) -> None:
    with contextlib.suppress(ConfigError, UnicodeDecodeError):
        parse_config(data.decode(), Path("config.toml"))


_TOPOLOGY = four_nodes()


def read_log(data: bytes) -> None:
    for kind in Format:
        with contextlib.suppress(UsageError):
            read_profile(io.BytesIO(data), _TOPOLOGY, kind=kind, capacity=100)


_JOURNAL = Journal.in_memory()
_ROWS = {
    "runs": "id scheduler job user hooked started ended",
    "placements": "run task cpus nodes settled at",
    "events": "at scheduler point job host user data done summary",
    "reports": "at scheduler job outcome report",
    "overrides": "run at was_cpus was_nodes cpus nodes data",
    "notes": "run key text",
    "locks": "scheduler job pid start_time until",
    "counters": "series value",
}


def read_rows(data: bytes) -> None:
    """Write a row of any types to each table and read it back: damaged rows are set aside."""
    parts = iter(data.split(b"\n"))
    database = _JOURNAL.database.connection
    database.execute("BEGIN")
    try:
        for table, columns in _ROWS.items():
            values = [_value(next(parts, b"")) for _ in columns.split()]
            places = ", ".join("?" * len(values))
            with contextlib.suppress(sqlite3.IntegrityError):
                names = columns.replace(" ", ", ")
                database.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", values)
        with contextlib.redirect_stderr(io.StringIO()):
            for _ in range(2):
                aside = _JOURNAL.counts().damaged
                json.dumps(_JOURNAL.history()).encode()
                for reader in (_JOURNAL.counters.read, _JOURNAL.runs.list_open):
                    reader()
                for of in (
                    _JOURNAL.runs.latest,
                    _JOURNAL.placements.known_tasks,
                    _JOURNAL.overrides.get,
                    _JOURNAL.locks.is_locked,
                ):
                    of("slurm", "7")
                _JOURNAL.notes.get("slurm", "7", "parked", json_object)
                for _, at, event in _JOURNAL.events.list_unfinished():
                    assert isinstance(at, float)
                    event.data.get("environ")
            assert _JOURNAL.counts().damaged == aside, "met twice"
    finally:
        database.execute("ROLLBACK")


def _value(raw: bytes) -> Any:
    """Return NULL for empty input, a number or bytes after a mark, else text."""
    if raw.startswith(b"#"):
        with contextlib.suppress(ValueError):
            number = float(raw[1:])
            return int(number) if abs(number) < 1 << 62 and number.is_integer() else number
    if raw.startswith(b"!"):
        return raw[1:]
    return raw.decode("utf-8", "replace") if raw else None


_NUMA_MAPS = b"""00400000 default file=/usr/bin/x mapped=4 mapmax=2 N0=3 N1=1 kernelpagesize_kB=4
7f00000000 bind:0-1 anon=512 dirty=512 N0=512 kernelpagesize_kB=4
7f40000000 prefer (many):0 file=/memfd:a\\040(deleted) huge N3=1 kernelpagesize_kB=2048"""
_MAPS = b"""00400000-00404000 r-xp 00000000 08:01 123 /usr/bin/x
7f00000000-7f00200000 rw-p 00000000 00:00 0
7f40000000-7f40200000 rw-s 00000000 00:05 9 /memfd:a b (deleted)"""
_MOUNTINFO = b"""24 1 8:1 / / rw - ext4 /dev/sda rw
30 24 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw
31 24 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
32 24 0:5 / /dev/shm rw - tmpfs tmpfs rw"""
_SMAPS = b"""00400000-00404000 r-xp 00000000 08:01 123 /usr/bin/x
Rss:                  16 kB
Pss:                   8 kB"""
_CGROUP = b"0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n5:cpuset:/a (deleted)"
_STATUS = b"""Name:\ta b
State:\tS (sleeping)
Tgid:\t7
Uid:\t1000\t1000\t1000\t1000
Threads:\t1
VmRSS:\t    8 kB
CapEff:\t000001ffffffffff
Cpus_allowed_list:\t0-3
Mems_allowed_list:\t0,2"""
_SLURM_NEW = b"""{"jobs": [{"job_id": {"set": true, "number": 7}, "nodes": "n1"}]}"""
_SLURM_OLD = b"""{"jobs": [{"job_id": 6, "nodes": ""}, {"job_id": 7, "nodes": "n[1-2]",
"array_job_id": 5, "array_task_id": null, "array_task_string": "1-3%2", "het_job_id": 0}]}"""
_PYSLURM = b"""{"number": 7, "hosts": "n[1-2]"}"""
_PBS = b"""{"job": {"id": "7.n1", "euser": "a", "session_id": 9}, "jobs": [{"id": "8"}],
"host": "n1", "pid": 1}"""
_TOLD = b'{"exec_vnode": "(n1[0])", "host": "n1", "user": 7, "sessions": [4], "suspended": true}'
_FENCE = b'{"before": "0", "wide": "0-1"}'
_REPLACING = b'{"cpus": {"0": 4}, "nodes": {"0": 2}, "cpus_before": "0", "mems_before": "0"}'
_CONFIG = b"""[relocation]\nthreads = 4\nkinds = ["anon"]\ncall_ms = 1.5\n[actions]\npark = "2-3"
[plugins.options.x]\ny = 1\n[log]\nlevel = "info"\n"""
_MESSAGES = tuple(
    delivery.make_message(scheduler, point, {b"SLURM_JOB_ID": b"7", b"PBS_X": b"y"}, data, wait)
    for scheduler, point, data, wait in (
        ("slurm", "prolog", b"", False),
        ("pbs", "attach", _PBS, True),
    )
)

_PERF = b"""# comment
  stream 4000/4001 [001] 13614.25: 1000 cpu/mem-loads,ldlat=30/P: 7f0000001000 5080022 |OP LOAD|
          a b  7/7  [000]  1.5:   page-faults:  7f0000002000
"""
_ROW_VALUES = b"""#1
slurm
7
#1000
#1
#5.5

#1
0.1
0-3
0-1
#1
#6
#6
slurm
prolog
7
n1

{"environ": {"SLURM_X": "1"}}

done
#6
slurm
7
complete
{"outcome": "complete", "bytes_moved": 4096, "bytes_left": 0, "node_map": {}, "processes": []}
#1
#6
0-1
0
2-3
1
{"leaving": "0-1"}
["relocations", "complete", "s", "none"]
#3
#1
parked
{"0": {}}
slurm
7
#1
#1
#99999999999"""

TARGETS: Mapping[str, Target] = {
    "sets": Target(read_sets, (b"0-3,8", b" 1,2 , 5-5\n", b"")),
    "areas": Target(
        read_areas, (_SEPARATOR.join((_NUMA_MAPS, _MAPS, _MOUNTINFO, _SMAPS)), _NUMA_MAPS)
    ),
    "cgroups": Target(read_cgroups, (_SEPARATOR.join((_MOUNTINFO, _CGROUP, b"0-3", b"1\n2\n")),)),
    "status": Target(
        read_status, (_STATUS, b"7 (a b) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0")
    ),
    "topology": Target(
        read_topology,
        (
            b"Node 0 MemTotal: 12 kB\nNode 0 MemFree: 4 kB\nNode 0 Active(file): 1 kB\n",
            b"Node 0, zone DMA\n  low 3\n  high 4\n  managed 9\n  protection: (0, 5)\n",
            b"0-1",
            b"10 20",
            b"Node 0, zone   Normal\n        spanned  9\n  start_pfn:  4\n",
        ),
    ),
    "exec-vnode": Target(read_exec_vnode, (b"(n1[0]:ncpus=2:mem=4gb+n1[1]:mem=1gb)+(n2:x='a b')",)),
    "hosts": Target(read_hosts, (b"n[1-3,07],login1", b"a[1-2]b[3]")),
    "slurm-json": Target(read_slurm_json, (_SLURM_NEW, _SLURM_OLD)),
    "slurm-text": Target(read_slurm_text, (b"6|6|n3\n7|5_[1-3%2]|n[1-2]\n",)),
    "slurm-names": Target(read_job_name, (b"36_[1-7:2,9%3]\n36_2", b"50+1\n50+1", b"36\n36_1")),
    "pyslurm": Target(read_pyslurm, (_PYSLURM,)),
    "message": Target(read_message, _MESSAGES),
    "pbs-event": Target(read_pbs_event, (_PBS,)),
    "pbs-notes": Target(read_pbs_notes, (_TOLD, _FENCE, _REPLACING)),
    "config": Target(read_config, (_CONFIG,)),
    "profile": Target(
        read_log,
        (
            _PERF,
            b"pid,cpu,address\n7,1,0x7f0000001000\n7,1,9\n",
            b'{"pid": 7, "cpu": 1, "address": 139637976731648, "weight": 2}\n',
        ),
    ),
    "journal": Target(read_rows, (_ROW_VALUES,)),
}
