"""Processes and callers in the special states of docs/reference/situations.md."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.target import NativeTarget
from schedhook.cli.main import main
from tests.balancing import setting
from tests.numa import callers, lsm
from tests.numa.callers import Answer, be_nobody, call
from tests.numa.jobs import Job, cgroup, until
from tests.numa.programs import program
from tests.users import NOBODY

pytestmark = pytest.mark.nodes(4)

MIB = 4
AWAY = ("--from", 0, "--to", 2, "--json")
CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--cgroup")


@pytest.fixture(scope="module", autouse=True)
def imports() -> None:
    """Import what takes time, or what some callers may not read."""
    for name in (
        "tenacity",
        "schedhook.cli.commands.doctor",
        "schedhook.agent.oneshot",
        "schedhook.values.log",
    ):
        import_module(name)
    main(["plan", "--pid", str(os.getpid()), "--map", "0:2", "--json"], standalone_mode=False)


def assert_moved(answer: Answer, job: Job, contents: str) -> dict[str, Any]:
    report = answer.report
    assert (answer.status, report["outcome"]) == (0, "complete"), answer
    assert report["bytes_planned"] == report["bytes_moved"] >= job.bytes
    assert job.checksum() == contents
    return report


def assert_refused(answer: Answer, job: Job, *words: str) -> None:
    """Assert that nothing moved, and that one line says why."""
    assert (answer.status, answer.report["outcome"]) == (4, "refused"), answer
    (line,) = answer.said.splitlines()
    for word in words:
        assert word in line
    assert answer.report["bytes_moved"] == 0
    assert job.share_on(0) == 1


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


# -- processes without memory --------------------------------------------------------------------


def test_a_kernel_thread_is_no_job() -> None:
    answer = call("relocate", "--pid", kernel_thread(), *AWAY)
    assert answer.status == 2
    assert "is a kernel thread" in answer.said


def test_kernel_threads_of_a_cgroup_are_passed_over() -> None:
    """The cgroup of a virtual machine contains its vhost threads."""
    thread = kernel_thread()
    with cgroup("mixed") as path, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()
        (path / "cgroup.procs").write_text(str(thread))
        try:
            report = assert_moved(call("relocate", "--cgroup", path, *AWAY), job, contents)
        finally:
            (path.parent / "cgroup.procs").write_text(str(thread))
        assert [each["pid"] for each in report["processes"]] == [job.pid]


def kernel_thread() -> int:
    """Return the pid of a kernel thread that may be put into a cgroup."""
    return next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/comm")
        if path.read_text() == "oom_reaper\n"
    )


@contextmanager
def zombie(path: Path) -> Iterator[int]:
    with Job("anon", 1, 0, cgroup=path) as job:
        job.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
        assert state_of(job.pid) == "Z"
        yield job.pid


def test_zombies() -> None:
    with cgroup("dead") as path, zombie(path) as dead, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()
        answer = call("relocate", "--pid", dead, *AWAY)
        assert answer.status == 1
        assert "has exited; its parent has yet to wait for it" in answer.said
        report = assert_moved(call("relocate", "--cgroup", path, *AWAY), job, contents)
        assert [each["pid"] for each in report["processes"]] == [job.pid]


def test_a_pid_without_a_process() -> None:
    with Job("anon", MIB, 0) as job:
        job.say("threads 1")
        thread = max(int(task.name) for task in Path(f"/proc/{job.pid}/task").iterdir())
        for number in (4194303, thread):
            answer = call("relocate", "--pid", job.pid, "--pid", number, *AWAY)
            assert (answer.status, answer.printed) == (1, "")
            assert f"no process {number}" in answer.said
        assert job.share_on(0) == 1


# -- processes that do not run -------------------------------------------------------------------


def test_a_stopped_process() -> None:
    with Job("anon", MIB, 0) as job:
        contents = job.checksum()
        job.process.send_signal(signal.SIGSTOP)
        until(lambda: state_of(job.pid) == "T")
        answer = call("relocate", "--pid", job.pid, *AWAY)
        assert state_of(job.pid) == "T"
        job.process.send_signal(signal.SIGCONT)
        assert_moved(answer, job, contents)


@pytest.mark.parametrize("options", [(), ("--freeze",)], ids=["left alone", "frozen again"])
def test_a_frozen_cgroup_stays_frozen(options: tuple[str, ...]) -> None:
    with cgroup("frozen") as path, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()
        (path / "cgroup.freeze").write_text("1")
        until(lambda: "frozen 1" in (path / "cgroup.events").read_text())
        answer = call("relocate", "--cgroup", path, *options, *AWAY)
        assert "frozen 1" in (path / "cgroup.events").read_text()
        (path / "cgroup.freeze").write_text("0")
        assert_moved(answer, job, contents)


def test_a_cgroup_whose_name_looks_like_a_line_about_another() -> None:
    """Users who may create cgroups may use any byte but a newline in their names."""
    with cgroup("victim") as victim, cgroup("x\udcff\r0::") as path:
        (inner := path / "victim").mkdir()
        with Job("anon", MIB, 0, cgroup=inner) as job:
            contents = job.checksum()
            answer = call("relocate", "--pid", job.pid, "--freeze", *AWAY)
            assert_moved(answer, job, contents)
            assert "frozen 0" in (victim / "cgroup.events").read_text()


def test_a_process_in_a_debugger() -> None:
    with Job("anon", MIB, 0) as job:
        contents = job.checksum()
        ptrace(16, job.pid)  # PTRACE_ATTACH
        os.waitpid(job.pid, 0)
        answer = call("relocate", "--pid", job.pid, *AWAY)
        assert state_of(job.pid) == "t"
        ptrace(17, job.pid)  # PTRACE_DETACH
        assert_moved(answer, job, contents)


def ptrace(request: int, pid: int) -> None:
    assert ctypes.CDLL(None).ptrace(request, pid, None, None) == 0


def test_a_parent_that_waits_in_vfork() -> None:
    """Both use one address space, which is counted for the parent and moves once."""
    with cgroup("vfork") as path, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()
        child = int(job.say("vfork"))
        assert state_of(job.pid) == "D"
        shown = call("show", "--cgroup", path, "--json").report
        assert shown["bytes"] < 2 * job.bytes
        answer = call("relocate", "--cgroup", path, *AWAY)
        assert moved_by_process(answer.report) == {
            job.pid: answer.report["bytes_moved"],
            child: 0,
        }
        assert f"{child} has no memory of its own" in answer.report["notes"][0]
        swap = call("relocate", "--cgroup", path, "--map", "0:2,2:0", "--json")
        assert moved_by_process(swap.report)[child] == 0
        assert job.share_on(0) == 1
        assert state_of(job.pid) == "D"
        os.kill(child, signal.SIGKILL)
        assert_moved(answer, job, contents)


def test_a_child_of_vfork_that_runs_a_program_in_mid_move(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of its stack tells; on a clean host the tests run without random addresses."""
    real = NativeTarget.sweep
    with (
        setting("/proc/sys/kernel/randomize_va_space", 2),
        cgroup("vforked") as path,
        Job("anon", MIB, 0, cgroup=path) as job,
    ):
        contents = job.checksum()
        child = int(job.say("vfork"))
        os.sched_setaffinity(child, {0})

        def sweep(target: NativeTarget, *arguments: Any, **options: Any) -> Any:
            os.kill(child, signal.SIGCONT)
            until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
            return real(target, *arguments, **options)

        monkeypatch.setattr(NativeTarget, "sweep", sweep)
        status, report = run("relocate", "--cgroup", path, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (0, "complete")
        assert all(size > 0 for size in moved_by_process(report).values())
        assert f"{child} became another program" in str(report["notes"])
        assert job.checksum() == contents


def moved_by_process(report: dict[str, Any]) -> dict[int, int]:
    return {each["pid"]: each["bytes_moved"] for each in report["processes"]}


# -- memory policies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "policy"),
    [
        (["policy 2 0"], "bind:0"),
        (["policy 1 0"], "prefer:0"),
        (["policy 3 0"], "interleave:0"),
        (["policy 2 0", "home 0"], "bind:0"),
    ],
    ids=["bind", "prefer", "interleave", "home node"],
)
def test_a_memory_policy_is_no_hindrance_and_stays(orders: list[str], policy: str) -> None:
    with Job("anon", MIB, 0) as job:
        contents = job.checksum()
        for order in orders:
            assert job.say(order) == "set"
        assert_moved(call("relocate", "--pid", job.pid, *AWAY), job, contents)
        assert f"{job.start:x} {policy} " in Path(f"/proc/{job.pid}/numa_maps").read_text()


# -- rights --------------------------------------------------------------------------------------


def test_a_user_moves_processes_of_their_own() -> None:
    """Yama denies debuggers access to it, but allows this: it is only read, not attached to."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    before = scope.read_text()
    with Job("anon", MIB, 0, user=NOBODY, group=NOBODY) as job:
        contents = job.checksum()
        scope.write_text("2")
        try:
            answer = call("relocate", "--pid", job.pid, *AWAY, become=be_nobody)
        finally:
            scope.write_text(before)
        assert_moved(answer, job, contents)


def test_a_process_that_is_not_dumpable() -> None:
    with Job("anon", MIB, 0, user=NOBODY, group=NOBODY) as job:
        contents = job.checksum()
        job.say("undumpable")
        relocation = ("relocate", "--pid", job.pid, *AWAY)
        assert_refused(call(*relocation, become=be_nobody), job, "not permitted", "CAP_SYS_PTRACE")
        assert_moved(call(*relocation), job, contents)


def test_a_setuid_program_of_the_same_user() -> None:
    binary = Path("/tmp/schedhook-test-setuid")
    binary.write_bytes(program("job").read_bytes())
    binary.chmod(0o4755)
    try:
        with Job("anon", MIB, 0, binary=binary, user=NOBODY, group=NOBODY) as job:
            answer = call("relocate", "--pid", job.pid, *AWAY, become=be_nobody)
            assert_refused(answer, job, "not permitted")
    finally:
        binary.unlink()


PROFILE = """
profile schedhook-test flags=(attach_disconnected) {
  capability, file, mount, umount, network, unix, signal, change_profile,
}
"""


def test_a_caller_that_a_security_module_confines() -> None:
    """AppArmor, with a profile that has no rule for ptrace."""
    load = ["apparmor_parser", "--skip-cache"]
    subprocess.run([*load, "--replace"], input=PROFILE, text=True, check=True, timeout=60)

    def confine() -> None:
        Path("/proc/self/attr/current").write_text("changeprofile schedhook-test")

    try:
        with Job("anon", MIB, 0) as job:
            answer = call("relocate", "--pid", job.pid, *AWAY, become=confine)
            assert_refused(answer, job, "not permitted", "security module")
    finally:
        subprocess.run([*load, "--remove"], input=PROFILE, text=True, check=True, timeout=60)


def test_a_security_module_that_lets_no_memory_move() -> None:
    """SELinux does so for a domain without `setsched`; its hook is called after all others."""
    with Job("anon", MIB, 0) as job:
        contents = job.checksum()
        with lsm.denying("task_movememory"):
            answer = call("relocate", "--pid", job.pid, *AWAY)
        assert_refused(answer, job, "security module denies move_pages(2)", "EACCES")
        assert_moved(call("relocate", "--pid", job.pid, *AWAY), job, contents)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("name", ["move_pages", "pidfd_open"])
def test_a_caller_whose_calls_are_filtered(name: str, error: int) -> None:
    def filtered() -> None:
        callers.deny([name, "migrate_pages"], error)

    with Job("anon", MIB, 0) as job:
        answer = call("relocate", "--pid", job.pid, *AWAY, become=filtered)
        assert_refused(answer, job, "seccomp filter", name, errno.errorcode[error])
    findings = json.loads(call("doctor", "--json", become=filtered).printed)["findings"]
    (found,) = [each for each in findings if each["subject"] == name]
    assert found["level"] == "problem"
    assert "seccomp filter" in found["remedy"]


def test_without_migrate_pages_move_pages_moves_everything() -> None:
    with Job("anon", MIB, 0) as job:
        contents = job.checksum()
        for error in (errno.EPERM, errno.ENOSYS):
            answer = call(
                *("relocate", "--pid", job.pid, "--strategy", "migrate-process", *AWAY),
                become=lambda error=error: callers.deny(["migrate_pages"], error),
            )
            report = assert_moved(answer, job, contents)
            assert "page by page" in report["notes"][-1]
            call("relocate", "--pid", job.pid, "--from", 2, "--to", 0)
        answer = call(
            *("relocate", "--pid", job.pid, "--strategy", "migrate-process", "--leftovers"),
            *("report", *AWAY),
            become=lambda: callers.deny(["migrate_pages"], errno.EPERM),
        )
        assert (answer.status, answer.report["outcome"]) == (1, "failed")
        assert answer.report["left_by_reason"].keys() == {"aborted"}


def test_more_processes_than_files_may_be_open() -> None:
    """The soft limit is raised; if the hard one is too low, nothing moves."""

    def allow(soft: int, hard: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with cgroup("many") as path, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()
        children = {int(job.say("fork")) for _ in range(12)}
        answer = call("relocate", "--cgroup", path, *AWAY, become=allow(48, 48))
        assert_refused(answer, job, "file descriptor", "ulimit -n")
        answer = call("relocate", "--cgroup", path, *AWAY, become=allow(48, 480))
        report = assert_moved(answer, job, contents)
        assert {each["pid"] for each in report["processes"]} == {job.pid, *children}


# -- namespaces and /proc ------------------------------------------------------------------------


@contextmanager
def contained(path: Path) -> Iterator[tuple[Job, int]]:
    """Start a job as the first process of a container in the cgroup; yield its pid outside too."""
    with Job("anon", MIB, 0, cgroup=path, prefix=CONTAINER) as job:
        starter = job.pid
        children = Path(f"/proc/{starter}/task/{starter}/children").read_text().split()
        job.pid = int(children[0])
        yield job, job.pid


def test_a_container_seen_from_outside() -> None:
    with cgroup("outside") as path, contained(path) as (job, pid):
        contents = job.checksum()
        report = assert_moved(call("relocate", "--cgroup", path, *AWAY), job, contents)
        assert pid in {each["pid"] for each in report["processes"]}


def enter(pid: int, *names: str) -> Callable[[], None]:
    """Return a function that joins the container of process `pid`."""

    def become() -> None:
        for name in names:
            with Path(f"/proc/{pid}/ns/{name}").open() as file:
                assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0
        callers.go_on_in_child()

    return become


def test_a_caller_in_the_container() -> None:
    """Its root user has no more rights over the host than any user."""
    with cgroup("inside") as path, contained(path) as (job, pid):
        contents = job.checksum()
        inside = enter(pid, "cgroup", "user", "pid", "mnt")
        report = assert_moved(call("relocate", "--pid", 1, *AWAY, become=inside), job, contents)
        assert [each["pid"] for each in report["processes"]] == [1]
        answer = call("relocate", "--pid", pid, *AWAY, become=inside)
        assert answer.status == 1
        assert f"no process {pid}" in answer.said


def test_pids_that_mean_another_process_in_proc() -> None:
    """In a container with the host's /proc, pid 1 is not the host's process 1."""
    with cgroup("mismatch") as path, contained(path) as (job, pid):
        inside = enter(pid, "user", "pid")
        answer = call("relocate", "--pid", 1, *AWAY, become=inside)
        assert_refused(answer, job, "/proc", "pid namespace")
        findings = json.loads(call("doctor", "--json", become=inside).printed)["findings"]
        (found,) = [each for each in findings if each["subject"] == "/proc"]
        assert found["level"] == "problem"


def test_without_proc() -> None:
    def become() -> None:
        callers.private_mounts()
        callers.mount("none", "/proc", "tmpfs")

    with Job("anon", MIB, 0) as job:
        answer = call("relocate", "--pid", job.pid, *AWAY, become=become)
        assert_refused(answer, job, "/proc is not mounted")


def test_processes_that_proc_hides() -> None:
    def become() -> None:
        callers.private_mounts()
        callers.mount("proc", "/proc", "proc", options="hidepid=2")
        be_nobody()

    with Job("anon", MIB, 0) as job:
        answer = call("relocate", "--pid", job.pid, *AWAY, become=become)
        assert_refused(answer, job, "hidepid")
    with Job("anon", MIB, 0, user=NOBODY, group=NOBODY) as job:
        contents = job.checksum()
        answer = call("relocate", "--pid", job.pid, *AWAY, become=become)
        assert_moved(answer, job, contents)


# -- what changes between the plan and the move --------------------------------------------------


def test_a_cpuset_that_is_narrowed_in_mid_move(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = NativeTarget.sweep
    with cgroup("narrowed") as path, Job("anon", MIB, 0, cgroup=path) as job:
        contents = job.checksum()

        def sweep(target: NativeTarget, *arguments: Any, **options: Any) -> Any:
            (path / "cpuset.mems").write_text("0-1")
            return real(target, *arguments, **options)

        monkeypatch.setattr(NativeTarget, "sweep", sweep)
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (1, "failed")
        assert "EACCES: a destination node is outside the process's cpuset" in report["notes"][-1]
        assert report["left_by_reason"] == {"aborted": report["bytes_left"]}
        assert job.share_on(0) == 1
        assert job.checksum() == contents
