"""Try what the agent does to a job, in the sandbox of its unit; run by test_service.py.

    service_probe.py PID CGROUP RESULT CAPABILITY=NUMBER...

PID is another user's process in CGROUP, which has a cpuset. The checks run with all of the
capabilities, and without each of them. RESULT gets a JSON object with the result of each check:
null, or the error.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.windows import open_windows, tells_swapped_pages
from schedhook.control.cpusets import write_cpus, write_nodes
from schedhook.control.threads import bind, read_threads
from schedhook.host.cgroups import resolve_cgroup
from schedhook.host.processes import read_areas, read_status
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.guidance import MIN_SAMPLES, Guidance
from schedhook.roles.profile import Profile
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection
from schedhook.values.model import NodeMap, Outcome
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.cgroups import read_variables

_VERSION_3 = 0x20080522  # <linux/capability.h>
EVERYWHERE = NodeSet(range(4))
"""There are four nodes of one CPU each."""
FEW = 64
PID, CGROUP = int(sys.argv[1]), sys.argv[2]
THEIRS = "/run/schedhook-test/theirs"
"""A file of the user of PID."""


def reads_status_and_writes_cpuset() -> None:
    """Read what every user may read in /proc; write files of a cgroup that belong to root."""
    assert read_status(PID).uid != 0
    cgroup = resolve_cgroup(CGROUP, Path("/"))
    write_cpus(cgroup, CpuSet({0, 1}))
    write_cpus(cgroup, CpuSet(EVERYWHERE))
    write_nodes(cgroup, EVERYWHERE)


def reads_residency() -> None:
    assert read_areas(PID)


def reads_task_rank() -> None:
    name = "SLURM_PROCID"
    assert read_variables(PID, Path("/"), frozenset({name})) == {name: "1"}


def opens_pagemap() -> None:
    os.close(os.open(f"/proc/{PID}/pagemap", os.O_RDONLY))


def binds_a_task() -> None:
    (thread,) = read_threads(PID)
    assert bind(thread, CpuSet({1}))
    assert bind(thread, CpuSet(EVERYWHERE))


def moves_shared_pages() -> None:
    assert NativeBackend().may_move_shared()


def tells_pages_apart() -> None:
    assert NativeBackend().page_set() is not None


def opens_a_mapped_object() -> None:
    link = next(Path(f"/proc/{PID}/map_files").iterdir())
    os.close(os.open(link, os.O_PATH))


def maps_pages_of_an_object() -> None:
    file = os.memfd_create("object")
    os.pwrite(file, b"x" * mmap.PAGESIZE, 0)
    with open_windows(file, mmap.PAGESIZE) as windows:
        assert len(list(windows.locate(0, windows.size))) == 1
    os.close(file)


def tells_what_is_in_swap() -> None:
    file = os.open(THEIRS, os.O_RDONLY)
    assert tells_swapped_pages(file)
    os.close(file)


CHECKS = [
    reads_status_and_writes_cpuset,
    reads_residency,
    reads_task_rank,
    opens_pagemap,
    binds_a_task,
    moves_shared_pages,
    tells_pages_apart,
    opens_a_mapped_object,
    maps_pages_of_an_object,
    tells_what_is_in_swap,
]


def relocates() -> dict[str, str | None]:
    """Relocate with each strategy, there and back."""
    # `cpuset` may block other processes; that does not matter here.
    options = {"cpuset": {"allow_blocking": True}}
    config = Config(plugins=PluginsSection(options=options))
    plugins = load_plugins(config)
    problems = [f"{each.source}: {each.what}" for each in plugins.problems]
    result: dict[str, str | None] = {"plug-ins load": "; ".join(problems) or None}
    gather = NodeMap(pairs=dict.fromkeys(range(3), 3))
    relocate(Request(pids=(PID,), node_map=gather), config, plugins)
    # Last, since the relocation after those of `cpuset` once took half a minute; why is not known.
    for name in sorted(plugins.names(StrategyPlugin), key="cpuset".__eq__):
        for old, new in ((3, 0), (0, 3)):
            report = relocate(request(name, old, new), config, plugins)
            done = report.outcome is Outcome.COMPLETE
            result[f"{name} {old}:{new}"] = None if done else str(report)
        write_nodes(resolve_cgroup(CGROUP, Path("/")), EVERYWHERE)
    return result


def request(strategy: str, old: int, new: int) -> Request:
    if strategy == "profile-guided":
        return Request(pids=(PID,), strategy=strategy, guidance=used_from(new, old))
    node_map = NodeMap(pairs={old: new})
    if strategy == "cpuset":
        return Request(cgroup=CGROUP, strategy=strategy, node_map=node_map)
    return Request(pids=(PID,), strategy=strategy, node_map=node_map)


def used_from(node: int, lies_on: int) -> Guidance:
    """Return a profile: `node` uses the first pages of each area that has pages on `lies_on`."""
    profile = Profile()
    for area in read_areas(PID):
        if lies_on in area.residency:
            for address in range(area.start, area.end, area.page_size)[:FEW]:
                profile.add(PID, address, node, MIN_SAMPLES)
    return Guidance(accesses={PID: profile.accesses([PID])}, nodes=NodeSet({node}))


def error_of(check: Callable[[], None]) -> str | None:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - the error is the result
        return f"{type(error).__name__}: {error}"
    return None


def without(number: int) -> dict[str, str | None]:
    """Run the checks in a child without the capability."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        drop(number)
        os.write(into, json.dumps({each.__name__: error_of(each) for each in CHECKS}).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as reader:
        result: dict[str, str | None] = json.loads(reader.read())
    os.waitpid(child, 0)
    return result


def drop(number: int) -> None:
    """Drop a capability of this process; capset(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    words = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, words) == 0
    for word in range(number // 32 * 3, number // 32 * 3 + 2):  # effective, permitted
        words[word] &= ~(1 << number % 32)
    assert libc.capset(header, words) == 0, os.strerror(ctypes.get_errno())


def main(result: Path, capabilities: Iterable[str]) -> None:
    found: dict[str, dict[str, str | None]] = {
        "with all": {each.__name__: error_of(each) for each in CHECKS} | relocates()
    }
    for each in capabilities:
        name, _, number = each.partition("=")
        found[name] = without(int(number))
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[3]), sys.argv[4:])
