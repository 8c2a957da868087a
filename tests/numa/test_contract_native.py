"""The native backend: the whole contract, and what only a kernel with several nodes can show."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.backends.native import _core
from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.target import NativeTarget
from schedhook.roles.backend import Limits, Sweep
from schedhook.testing.contracts.backend import BackendContract
from schedhook.testing.contracts.one_node import area_of, sweep
from schedhook.testing.contracts.page_plans import make_page_move
from schedhook.testing.native import HUGE, NativeHooks, NativeSubject
from schedhook.testing.processes import numa_maps
from schedhook.values.errors import UsageError

pytestmark = pytest.mark.nodes(4)
MIB = 1 << 20


def kernel_scans() -> bool:
    """Return whether the kernel has PAGEMAP_SCAN (Linux 6.7)."""
    with Path("/proc/self/pagemap").open("rb") as file:
        return _core.can_scan(file.fileno())


WITHOUT_A_SCAN = ["without a scan"] if kernel_scans() else []
"""Without PAGEMAP_SCAN that is what the kernel can."""


@pytest.fixture(autouse=True, params=["as the kernel can", *WITHOUT_A_SCAN, "without frames"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run every test with each means of finding pages.

    These are PAGEMAP_SCAN if the kernel has it, reading pagemap, and reading pagemap without
    recognising huge pages (as without privileges).
    """
    real = NativeTarget._range

    def limited(*arguments: object) -> tuple[object, ...]:
        *range_, use_scan, kpageflags, zero, spans = real(*arguments)  # type: ignore[arg-type]
        if request.param == "as the kernel can":
            return (*range_, use_scan, kpageflags, zero, spans)
        if request.param == "without frames":
            return (*range_, False, -1, 0, b"")
        return (*range_, False, flags, zero, spans)

    with Path("/proc/kpageflags").open("rb") as file:
        flags = file.fileno()
        monkeypatch.setattr(NativeTarget, "_range", limited)
        yield str(request.param)


class TestContract(NativeHooks, BackendContract):
    nodes = (0, 1, 2, 3)


def test_huge_pages_take_few_calls(means: str) -> None:
    """Each is one address, four in a batch, with no spurious EBUSY."""
    size, limits = 16 * HUGE, Limits(batch_bytes=4 * HUGE)
    with (
        NativeSubject(nodes=[0] * 16, folio_size=HUGE) as process,
        NativeBackend().attach(process.pid) as target,
    ):
        assert anon_huge(process.pid, process.start) == size
        area = area_of(target, process)
        done = target.sweep(area, area.start, area.end, {0: 2}, shared=False, limits=limits)
        assert not done.failures
        assert done.moved == {(0, 2): size}
        if means != "without frames":  # else they move as small pages
            assert done.calls == 4
        assert anon_huge(process.pid, process.start) == size


def test_a_batch_ends_between_folios() -> None:
    """Else the rest of a folio has moved along with its first part, and does not count."""
    with (
        NativeSubject(nodes=[0] * 4, folio_size=HUGE) as process,
        NativeBackend().attach(process.pid) as target,
    ):
        area, limits = area_of(target, process), Limits(batch_bytes=HUGE + HUGE // 2)
        done = target.sweep(area, area.start, area.end, {0: 2}, shared=False, limits=limits)
        assert not done.failures
        assert done.moved == {(0, 2): 4 * HUGE}


def test_of_many_huge_pages_only_a_held_one_stays() -> None:
    with (
        NativeSubject(nodes=[0] * 6, folio_size=HUGE) as process,
        NativeBackend().attach(process.pid) as target,
    ):
        process.hold(2)
        area = area_of(target, process)
        done = sweep(target, area, {0: 3})
        assert done.moved == {(0, 3): 5 * HUGE}
        assert sum(failure.size for failure in done.failures) == HUGE
        held = process.start + 2 * HUGE
        assert {(f.start >= held, f.end <= held + HUGE) for f in done.failures} == {(True, True)}
        assert {failure.errno for failure in done.failures} <= {errno.EAGAIN, errno.EBUSY}
        process.release()
        assert sweep(target, area, {0: 3}).moved == {(0, 3): HUGE}


def test_many_held_pages_among_many() -> None:
    with (
        NativeSubject(nodes=[1] * 2048) as process,
        NativeBackend().attach(process.pid) as target,
    ):
        held = range(100, 1900, 150)
        for index in held:
            process.hold(index)
        done = sweep(target, area_of(target, process), {1: 0})
        page = process.unit
        assert sum(done.moved.values()) == (2048 - len(held)) * page
        assert [(f.start - process.start) // page for f in done.failures] == list(held)
        assert all(failure.size == page for failure in done.failures)


def test_a_time_limit_makes_calls_short() -> None:
    def moved(limits: Limits) -> Sweep:
        with (
            NativeSubject(nodes=[0] * 8192) as process,
            NativeBackend().attach(process.pid) as target,
        ):
            area = area_of(target, process)
            return target.sweep(area, area.start, area.end, {0: 1}, shared=False, limits=limits)

    free, bound = moved(Limits()), moved(Limits(call_seconds=0.004))
    assert free.moved == bound.moved
    assert bound.calls > 2 * free.calls


def test_an_exit_during_a_sweep_is_reported() -> None:
    """The process exits while another thread runs a long sweep."""
    with (
        NativeSubject(nodes=[0] * 16384) as process,
        NativeBackend().attach(process.pid) as target,
    ):
        area = area_of(target, process)
        found: list[Sweep] = []
        limits = Limits(batch_bytes=64 << 10)
        thread = threading.Thread(
            target=lambda: found.append(
                target.sweep(area, area.start, area.end, {0: 1}, shared=False, limits=limits)
            )
        )
        thread.start()
        while not process_moved(process):
            pass
        process.end_now()
        thread.join(60)
    (done,) = found
    assert done.gone
    assert 0 < sum(done.moved.values()) < 16384 * process.unit


def test_shared_memory_moves_wherever_it_is_mapped() -> None:
    """Two ranks share a segment, and each has touched its own half."""
    with (
        NativeSubject(nodes=[0] * 16 + [None] * 16, shared=True) as one,
        NativeSubject(nodes=[None] * 15 + [0] * 17, share_with=one) as two,
        NativeBackend().attach(one.pid) as first,
        NativeBackend().attach(two.pid) as second,
    ):
        move = make_page_move(NativeBackend(), first, (0, 1, 2, 3), second)
        move.plan_pages(lambda pages: 2 if one.start <= pages.start < one.end else None)
        planned = [process.page_plan.moves for process in move.processes if process.page_plan]
        # The page that both have touched counts with the one that has touched more.
        assert planned == [{(0, 2): 15 * one.unit}, {(0, 2): 17 * one.unit}]
        move.carry_out()
        assert [process.left for process in move.processes] == [{}, {}]
        assert one.residency() == {2: 16 * one.unit}
        assert two.residency() == {2: 17 * one.unit}


def process_moved(process: NativeSubject) -> int:
    """Return the bytes on node 1 while the sweep runs."""
    return numa_maps(process.pid, process.start).get(1, 0)


def test_a_kernel_thread_has_no_memory() -> None:
    assert Path("/proc/2/comm").read_text() == "kthreadd\n"
    with pytest.raises(UsageError, match="kernel thread"):
        NativeBackend().attach(2)


def anon_huge(pid: int, start: int) -> int:
    """Return AnonHugePages of the mapping, in bytes; proc(5)."""
    found = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith(f"{start:x}-"):
            found = True
        elif found and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    raise LookupError(f"{start:#x}")
