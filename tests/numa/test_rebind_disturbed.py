"""Rebind policies of programs that are busy or in an awkward state; kill relocations meanwhile."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.cli.main import main
from schedhook.control.rebinding import Rebinding
from schedhook.values.model import NodeMap
from schedhook.values.policy import PolicyMode
from tests.forked import in_child
from tests.numa.bound import ONLY_X86, THREADS, Run, bound, joining, nodes_of, relocate
from tests.numa.jobs import cannot_run, cgroup
from tests.numa.killing import kill_after, random_moments
from tests.unit.control.talking import talking

pytestmark = [pytest.mark.nodes(4), ONLY_X86]

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "10"))
REBINDS = int(os.environ.get("SCHEDHOOK_REBINDS", "4"))
PAUSE = "50000"
"""Microseconds: emulated processors are slow."""


@pytest.mark.timeout(900 + 10 * REBINDS)
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


@pytest.mark.timeout(900 + 10 * KILLS)
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
                os.write(1, str(rebinding.notes()).encode())  # print goes to pytest
            return 0

        scope.write_text("2")
        try:
            child = in_child(as_user, log)
            _, status = os.waitpid(child, 0)
        finally:
            scope.write_text("0")
        assert "not permitted" in log.read_text(), (status, log.read_text())
        assert program.ask() == "fine"
