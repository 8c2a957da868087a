"""`--policies rebind`: what processes allocate after a relocation comes from the new nodes.

The programs say themselves, by get_mempolicy(2), on which nodes they got memory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.cli.main import main
from schedhook.control.rebinding import Rebinding
from schedhook.values.model import NodeMap
from schedhook.values.nodemap import parse_map
from schedhook.values.policy import PolicyFlag, PolicyMode
from tests.numa.jobs import cannot_run, cgroup
from tests.numa.killing import in_child, kill_after, random_moments
from tests.unit.control.talking import Talking, talking

pytestmark = pytest.mark.nodes(4)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "10"))
REBINDS = int(os.environ.get("SCHEDHOOK_REBINDS", "20"))
THREADS = 3
PAUSE = "20000"
"""Microseconds: emulated processors are slow."""
MODES = ["BIND", "PREFERRED", "PREFERRED_MANY", "INTERLEAVE", "WEIGHTED_INTERLEAVE"]
FLAGS = {"plain": PolicyFlag(0), "static": PolicyFlag.STATIC, "relative": PolicyFlag.RELATIVE}

Run = Callable[..., tuple[int, dict[str, Any]]]


@contextmanager
def bound(mode: int, nodes: Iterable[int], area: str = "none", **options: Any) -> Iterator[Talking]:
    """Start a program with this policy on these nodes."""
    mask = sum(1 << node for node in nodes)
    words = ("bound", str(mode), str(mask), str(THREADS), area)
    with talking(*words, **options) as program:
        yield program


def nodes_of(answer: str) -> set[int]:
    """Return the nodes of an answer, each of which has its share."""
    pages = {int(node): int(count) for node, count in re.findall(r"(\d+):(\d+)", answer)}
    assert pages, answer
    return set(pages)


def relocate(run: Run, programs: Sequence[Talking], pairs: str) -> dict[str, Any]:
    pids = [word for program in programs for word in ("--pid", program.pid)]
    status, report = run("relocate", *pids, "--map", pairs, "--policies", "rebind")
    assert status == 0, report
    return report


def weighted_interleave() -> bool:
    return Path("/sys/kernel/mm/mempolicy/weighted_interleave").exists()


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("mode", MODES)
def test_the_next_allocation_comes_from_the_new_nodes(mode: str, flags: str, run: Run) -> None:
    """That of each thread and of a new process, in an area of its own and in shared memory."""
    if mode == "WEIGHTED_INTERLEAVE" and not weighted_interleave():
        pytest.skip("this kernel has no weighted interleave")
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


def test_policies_are_left_by_default(run: Run) -> None:
    with bound(PolicyMode.BIND, {0}) as program:
        run("relocate", "--pid", program.pid, "--map", "0:2")
        assert nodes_of(program.ask("threads")) == {0}


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


def joining(group: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")


def test_nodes_that_the_map_does_not_name_stay(run: Run) -> None:
    with bound(PolicyMode.INTERLEAVE, {0, 3}) as program:
        relocate(run, [program], "0:1")
        assert nodes_of(program.ask("threads")) == {1, 3}


def test_a_plan_rebinds_nothing(run: Run) -> None:
    with bound(PolicyMode.BIND, {0}) as program:
        run("plan", "--pid", program.pid, "--map", "0:2", "--policies", "rebind")
        assert nodes_of(program.ask("threads")) == {0}


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


def test_many_rebinds_of_a_busy_program() -> None:
    """SCHEDHOOK_REBINDS says how many. Each one concerns every thread."""
    bind = ("numactl", "--membind=0")
    with (
        talking("steady", PAUSE, prefix=bind) as steady,
        NativeBackend().attach(steady.pid) as target,
    ):
        began = time.monotonic()
        for number in range(REBINDS):
            pairs = {0: 2} if number % 2 == 0 else {2: 0}
            rebinding = Rebinding(NodeMap(pairs=pairs))
            rebinding.follow([target])
            refused = [note for note in rebinding.notes() if "stay" in note]
            assert not refused, refused
        seconds = time.monotonic() - began
        steady.ask("check")
        time.sleep(5)
        answer = steady.ask("check")
        print(f"{REBINDS} rebinds in {seconds:.1f} s: {answer}")
        assert re.fullmatch(r"ok \d+ 0", answer)


def relocation(pid: int, pairs: str) -> Callable[[], int]:
    words = ["relocate", "--pid", str(pid), "--map", pairs, "--policies", "rebind"]
    return lambda: main(words, standalone_mode=False)


def test_killed_in_mid_rebind(tmp_path: Path) -> None:
    """SCHEDHOOK_KILLS says how often. The program goes on, and the next relocation finishes it."""
    moments = random_moments()
    bind = ("numactl", "--membind=0")
    killed = 0
    with talking("steady", PAUSE, prefix=bind) as steady:
        for number in range(KILLS):
            pairs = "0:2" if number % 2 == 0 else "2:0"
            words = ["relocate", "--pid", str(steady.pid), "--map", pairs, "--policies", "rebind"]
            child = in_child(
                lambda words=words: main(words, standalone_mode=False), tmp_path / "log"
            )
            killed += kill_after(child, moments.uniform(0.05, 1.0)) is None
            assert steady.process.poll() is None
        steady.ask("check")
        time.sleep(5)
        answer = steady.ask("check")
        print(f"{killed} of {KILLS} were killed: {answer}")
        assert answer.startswith("ok")
        assert killed
        with NativeBackend().attach(steady.pid) as target:
            rebinding = Rebinding(NodeMap(pairs={0: 3, 2: 3}))
            rebinding.follow([target])
        policies = {
            line.split()[1]
            for task in Path(f"/proc/{steady.pid}/task").iterdir()
            for line in (task / "numa_maps").read_text().splitlines()
        }
        assert policies == {"bind:3"}


def test_a_frozen_process_is_left(run: Run) -> None:
    with (
        cgroup("schedhook-test-rebind") as group,
        bound(PolicyMode.BIND, {0}, prefix=joining(group)) as program,
    ):
        (group / "cgroup.freeze").write_text("1")
        try:
            report = relocate(run, [program], "0:2")
        finally:
            (group / "cgroup.freeze").write_text("0")
        assert any("its cgroup is frozen" in note for note in report["notes"])
        assert report["policies_left"]["threads"] == THREADS + 1
        assert nodes_of(program.ask("threads")) == {0}


@pytest.mark.parametrize("state", ["filter", "full", "limit", "vfork"])
def test_awkward_programs_are_left(state: str, run: Run) -> None:
    """Their memory moves all the same."""
    with talking("awkward", state, prefix=("numactl", "--membind=0")) as program:
        words = ("relocate", "--pid", program.pid, "--map", "0:2", "--policies", "rebind")
        _, report = run(*words)
        assert any("stay as they are" in note for note in report["notes"]), report
        assert report["bytes_moved"]
        assert program.ask() == "fine"


def test_without_the_right_to_trace(tmp_path: Path) -> None:
    """Yama lets only root trace: a user's own process keeps its policies, and goes on."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if not scope.exists():
        cannot_run("this kernel has no Yama")
    log = tmp_path / "log"
    user = {"user": 65534, "group": 65534, "extra_groups": ()}
    with talking("awkward", "plain", prefix=("numactl", "--membind=0"), **user) as program:

        def as_user() -> int:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with NativeBackend().attach(program.pid) as target:
                rebinding = Rebinding(NodeMap(pairs={0: 2}))
                rebinding.follow([target])
                print(rebinding.notes(), flush=True)
            return 0

        scope.write_text("2")
        try:
            child = in_child(as_user, log)
            _, status = os.waitpid(child, 0)
        finally:
            scope.write_text("0")
        assert "not permitted" in log.read_text(), (status, log.read_text())
        assert program.ask() == "fine"
