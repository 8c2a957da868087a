"""System calls run in other processes: nothing of it shows, whatever they do and who is killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.backends.native import _core
from schedhook.control import remote as remote_module
from schedhook.control import restorers
from schedhook.control.kernel_policies import KernelPolicy, get_policy, set_policy
from schedhook.control.remote import RemoteProcess, Visit
from schedhook.control.restorers import Restorers
from schedhook.control.threads import read_threads
from schedhook.host.mappings import MapsLine
from schedhook.host.tracing import read_trace_status
from schedhook.values.errors import ProcessGoneError, RefusedError, SchedhookError
from schedhook.values.sets import NodeSet
from tests.unit.control.talking import Talking, talking

pytestmark = pytest.mark.skipif(
    not _core.remote_restorers(), reason="not implemented for this architecture"
)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "25"))
ROUNDS = int(os.environ.get("SCHEDHOOK_REBINDS", "10"))
DEFAULT = KernelPolicy(0, NodeSet())
BIND = KernelPolicy(2, NodeSet({0}))


@pytest.fixture
def steady() -> Iterator[Talking]:
    with talking("steady") as program:
        yield program


def set_and_reset(visit: Visit) -> tuple[int, KernelPolicy | None, int, KernelPolicy | None]:
    return set_policy(visit, BIND), get_policy(visit), set_policy(visit, DEFAULT), get_policy(visit)


def visit_all(pid: int, known: Restorers) -> int:
    """Visit each thread; return how many there were."""
    with RemoteProcess(pid, known) as remote:
        threads = read_threads(pid)
        for thread in threads:
            with suppress(ProcessGoneError):
                assert remote.visit(thread, set_and_reset) == (0, BIND, 0, DEFAULT)
    return len(threads)


def mappings(pid: int) -> int:
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def test_every_thread_of_a_busy_program(steady: Talking) -> None:
    """Waits, signals, children and computations go on as if nothing had been."""
    before, visits = mappings(steady.pid), 0
    assert steady.ask("check").startswith("ok")
    for _ in range(ROUNDS):
        visits += visit_all(steady.pid, Restorers())
    time.sleep(0.5)
    word, rounds, early = steady.ask("check").split()
    print(f"{visits} visits, {rounds} rounds of the program")
    assert (word, early) == ("ok", "0")
    assert mappings(steady.pid) <= before + 2, "memory of ours is left in it"  # its own may grow
    assert visits > 20 * ROUNDS


def test_visitors_killed_at_any_moment(steady: Talking) -> None:
    """What is stopped goes on by itself. The kernel may end a wait early, as after SIGSTOP."""
    moments, known = random.Random(os.environ.get("SCHEDHOOK_SEED", "1")), Restorers()
    visit_all(steady.pid, known)
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            try:
                while True:
                    visit_all(steady.pid, known)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0.002, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the visitor ended before it was killed"
    steady.ask("check")
    time.sleep(0.5)
    answer = steady.ask("check")
    print(f"{KILLS} visitors killed: {answer}")
    assert answer.startswith("ok")
    visit_all(steady.pid, known)


def test_a_thread_that_does_not_come_back_keeps_its_frame() -> None:
    """Neither is the frame overwritten, nor the memory that it is in unmapped."""

    def fail(_: Visit) -> None:
        raise OSError(errno.ETIMEDOUT, "too late")

    with talking("awkward", "plain") as program:
        with RemoteProcess(program.pid, Restorers()) as remote:
            before = mappings(program.pid)
            (thread,) = read_threads(program.pid)
            for why in ("does not stop", "did not come back"):
                with pytest.raises(RefusedError, match=why):
                    remote.visit(thread, fail)
        assert program.ask() == "fine"
        assert mappings(program.pid) == before
        visit_all(program.pid, Restorers())
        assert program.ask() == "fine"


def test_a_process_whose_threads_come_and_go_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with talking("awkward", "plain") as program:
        (thread,) = read_threads(program.pid)
        ended = [replace(thread, start_time=thread.start_time - 1)] * 4
        first = RemoteProcess.first_thread
        monkeypatch.setattr(
            RemoteProcess, "first_thread", lambda self: ended.pop() if ended else first(self)
        )
        assert visit_all(program.pid, Restorers()) == 1
        ended += [replace(thread, start_time=thread.start_time - 1)] * 5
        with pytest.raises(ProcessGoneError, match="has ended"):
            visit_all(program.pid, Restorers())


def test_no_memory_of_ours_is_left_in_a_process() -> None:
    with talking("awkward", "plain") as program:
        assert program.ask() == "fine"
        before = mappings(program.pid)
        visit_all(program.pid, Restorers())
        assert mappings(program.pid) == before


def test_a_frozen_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module.cgroups, "frozen", lambda *_: True)
    with (
        talking("awkward", "plain") as program,
        pytest.raises(RefusedError, match="its cgroup is frozen"),
        RemoteProcess(program.pid, Restorers()),
    ):
        pytest.fail("not refused")


def test_a_visit_that_was_given_up_does_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would use the memory in which another visit has its frame and arguments."""
    visited = False

    def place_late(*_: object) -> int:
        time.sleep(0.5)
        return mapped_frame

    def work(_: Visit) -> None:
        nonlocal visited
        visited = True

    with talking("awkward", "plain") as program:
        with RemoteProcess(program.pid, Restorers()) as remote:
            (thread,) = read_threads(program.pid)
            mapped_frame = remote.visit(thread, lambda visit: visit.arguments - 64 + (40 << 10))
            monkeypatch.setattr(remote_module, "_VISIT_SECONDS", 0.1)
            monkeypatch.setattr(remote, "_choose_place", place_late)
            with pytest.raises(RefusedError, match="cannot be read"):
                remote.visit(thread, work)
            with pytest.raises(RefusedError, match="did not come back"):
                remote.visit(thread, work)
            time.sleep(0.7)
        assert not visited
        assert program.ask() == "fine"


@pytest.mark.parametrize("calls", [0, 1])
def test_registers_if_the_visitor_dies(calls: int) -> None:
    """The signal frame alone restores a thread that computes, also its wide registers."""
    with talking("awkward", "registers") as program:
        for _ in range(5):
            child = os.fork()
            if not child:
                try:
                    with RemoteProcess(program.pid, Restorers()) as remote:
                        (first, *_) = read_threads(program.pid)
                        remote.visit(first, lambda visit: die_after(visit, calls))
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
            assert program.ask() == "fine"


def die_after(visit: Visit, calls: int) -> None:
    for _ in range(calls):
        set_policy(visit, DEFAULT)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("state", ["plain", "leave", "coroutine", "churn", "registers", "steps"])
def test_awkward_programs(state: str) -> None:
    """A first thread that has ended, or runs on another stack; threads that come and go."""
    with talking("awkward", state) as program:
        while state == "leave" and read_trace_status(program.pid, program.pid).state != "Z":
            time.sleep(0.01)
        for _ in range(5):
            assert visit_all(program.pid, Restorers())
            assert program.ask() == "fine"


@pytest.mark.parametrize("call", ["epoll_wait", "epoll_pwait2", "io_uring_enter"])
@pytest.mark.parametrize("signals", [0, 1])
def test_a_wait_ends_only_for_a_signal(call: str, signals: int) -> None:
    """A program that looks at a flag whenever its wait ends must see what its handler has set."""

    def signal_during(visit: Visit) -> None:
        set_and_reset(visit)
        for _ in range(signals):
            os.kill(program.pid, signal.SIGUSR1)

    with waiting(call) as program:
        thread = next(each for each in read_threads(program.pid) if each.tid == program.pid)
        with RemoteProcess(program.pid, Restorers()) as remote:
            remote.visit(thread, signal_during)
        end = time.monotonic() + 2
        while (answer := program.ask()) != f"{signals} {signals}" and time.monotonic() < end:
            time.sleep(0.01)
        assert answer == f"{signals} {signals}"


@pytest.mark.parametrize("call", ["epoll_wait", "epoll_pwait2", "io_uring_enter"])
def test_a_signal_ends_a_wait_that_was_stopped_just_before(call: str) -> None:
    """On a busy processor the thread has not made its call again by then."""
    visits, cpu = 30, min(os.sched_getaffinity(0))

    def send(visit: Visit) -> None:
        set_and_reset(visit)
        os.kill(program.pid, signal.SIGUSR1)

    with waiting(call) as program, busy(cpu):
        os.sched_setaffinity(program.pid, {cpu})
        thread = next(each for each in read_threads(program.pid) if each.tid == program.pid)
        for sent in range(1, visits + 1):
            with RemoteProcess(program.pid, Restorers()) as remote:
                remote.visit(thread, send)
            while program.ask().split()[1] != str(sent):
                time.sleep(0.001)
        end = time.monotonic() + 2
        while (answer := program.ask()) != f"{visits} {visits}" and time.monotonic() < end:
            time.sleep(0.01)
        assert answer == f"{visits} {visits}"


@contextmanager
def busy(cpu: int) -> Iterator[None]:
    """Let three processes compute on a processor."""
    words = ["taskset", "--cpu-list", str(cpu), "sh", "-c", "while :; do :; done"]
    others = [subprocess.Popen(words) for _ in range(3)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextmanager
def waiting(call: str) -> Iterator[Talking]:
    """Start a program whose first thread is in that system call."""
    with talking("waiting", call) as program:
        while read_trace_status(program.pid, program.pid).state != "S":
            time.sleep(0.01)
        if program.ask() == "unavailable":
            pytest.skip(f"this kernel or container has no {call}")
        yield program


def test_the_search_for_a_restorer_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program can map any amount of code, and the search runs as root."""
    size, searched = 200 << 20, 0
    mappings = [MapsLine(n * size, (n + 1) * size, False, 0, "8:1", n, b"/a") for n in range(1, 9)]

    def read_zeros(_: int, __: int, count: int) -> bytes:
        nonlocal searched
        searched += count
        return b""

    monkeypatch.setattr(restorers, "read_code", lambda *_, **__: mappings)
    monkeypatch.setattr(restorers, "_read", read_zeros)
    with pytest.raises(RefusedError, match="no code to return"):
        Restorers().find(1, 1, -1)
    assert size < searched < 2 * size


def test_code_without_a_restorer_does_not_keep_others_from_being_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form = _core.remote_restorers()[0]
    program, libc = 1 << 32, 1 << 40
    code = {program: form.ljust(4096, b"\0"), libc: b"\0" * 4096}
    mappings = [
        MapsLine(start, start + 4096, False, 0, "8:1", start, name)
        for start, name in ((program, b"/program"), (libc, b"/lib/libc.so.6"))
    ]
    searched: list[int] = []

    def read(_: int, address: int, count: int) -> bytes:
        start = address & ~4095
        searched.append(start)
        return code[start][address - start :][:count]

    monkeypatch.setattr(restorers, "read_code", lambda *_, **__: mappings)
    monkeypatch.setattr(restorers, "_read", read)
    assert Restorers().find(1, 1, -1) == program
    assert searched[0] == libc, "where most programs have it"
    assert restorers.is_restorer(-1, program)
    assert not restorers.is_restorer(-1, libc)


def test_an_architecture_whose_restorers_are_not_known_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_core, "remote_restorers", tuple)
    with pytest.raises(RefusedError, match="only x86-64 is supported"):
        Restorers().find(os.getpid(), os.getpid(), -1)


@pytest.mark.parametrize("place", [0, 1, (1 << 20) - 3, 1 << 20, (1 << 20) + 7])
def test_a_restorer_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """At the beginning of the code as well, and across the end of what is read at once."""
    start, size = 1 << 30, 3 << 20
    form = _core.remote_restorers()[0]
    code = (b"\0" * place + form).ljust(size, b"\0")
    mapping = MapsLine(start, start + size, False, 0, "8:1", 1, b"/libc.so.6")
    monkeypatch.setattr(restorers, "read_code", lambda *_, **__: [mapping])
    monkeypatch.setattr(
        restorers, "_read", lambda _, address, count: code[address - start :][:count]
    )
    finder = Restorers()
    assert [finder.find(1, 1, -1) for _ in range(2)] == [start + place] * 2


def test_a_program_that_becomes_others() -> None:
    with talking("awkward", "exec") as program:
        end = time.monotonic() + 2
        while time.monotonic() < end and program.process.poll() is None:
            try:
                visit_all(program.pid, Restorers())
            except SchedhookError:
                continue
        assert program.ask() == "fine"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("filter", "seccomp"),
        ("vfork", "does not stop"),
        ("full", "no room on its stack"),
        ("limit", "no memory can be mapped into it: Cannot allocate memory"),
    ],
)
def test_refused_and_unharmed(state: str, why: str) -> None:
    with talking("awkward", state) as program:
        began = time.monotonic()
        with pytest.raises(RefusedError, match=why):
            visit_all(program.pid, Restorers())
        assert time.monotonic() - began < 5
        assert program.ask() == "fine"
        while read_trace_status(program.pid, program.pid).tracer:  # the visitor's thread ends
            assert time.monotonic() - began < 10
            time.sleep(0.01)


def test_a_traced_program_is_refused() -> None:
    with talking("awkward", "plain") as program:
        reader, writer = os.pipe()
        tracer = os.fork()
        if not tracer:
            try:
                _core.remote_stop(program.pid, 10**9)
                os.write(writer, b"x")
                time.sleep(60)
            finally:
                os._exit(1)
        os.read(reader, 1)
        try:
            with pytest.raises(RefusedError, match=f"process {tracer} traces it"):
                visit_all(program.pid, Restorers())
        finally:
            os.kill(tracer, signal.SIGKILL)
            os.waitpid(tracer, 0)
            os.close(reader)
            os.close(writer)
        assert program.ask() == "fine"


def test_a_stopped_program_stays_stopped(steady: Talking) -> None:
    os.kill(steady.pid, signal.SIGSTOP)
    while read_trace_status(steady.pid, steady.pid).state != "T":
        time.sleep(0.01)
    visit_all(steady.pid, Restorers())
    states = {
        read_trace_status(steady.pid, thread.tid).state for thread in read_threads(steady.pid)
    }
    assert states == {"T"}
    os.kill(steady.pid, signal.SIGCONT)
    time.sleep(0.3)
    assert steady.ask("check").startswith("ok")


def test_stopped_and_continued_during_visits(steady: Talking) -> None:
    stop = "while :; do kill -STOP $0 && kill -CONT $0 || exit; done"
    stopper = subprocess.Popen(["/bin/sh", "-c", stop, str(steady.pid)])
    try:
        for _ in range(ROUNDS):
            visit_all(steady.pid, Restorers())
    finally:
        stopper.kill()
        stopper.wait()
        os.kill(steady.pid, signal.SIGCONT)
    steady.ask("check")
    time.sleep(0.5)
    assert steady.ask("check").startswith("ok")


def test_this_process_is_refused() -> None:
    with pytest.raises(RefusedError, match="it is this process"):
        visit_all(os.getpid(), Restorers())


def test_32_bit_code_is_refused(tmp_path: Path) -> None:
    source = ".globl _start\n_start: mov $29, %eax\n int $0x80\n jmp _start\n"  # pause(2)
    words = ["gcc", "-m32", "-nostdlib", "-static", "-x", "assembler", "-", "-o", tmp_path / "p"]
    subprocess.run(words, input=source, text=True, check=True, timeout=60)
    process = subprocess.Popen([tmp_path / "p"])
    try:
        time.sleep(0.1)
        with pytest.raises(OSError, match="Exec format error"):
            _core.remote_stop(process.pid, 10**9)
        with pytest.raises(RefusedError):
            visit_all(process.pid, Restorers())
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
