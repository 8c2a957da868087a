"""Every tier: find the helpers, give examples of hypothesis time, let children take signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# At the end, so that the tests find their helpers (``tests.…``) and nothing else moves.
sys.path.append(str(Path(__file__).parents[1]))

from tests.balancing import STATES

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell starts background jobs with SIGINT ignored, nohup(1) with SIGHUP ignored. Children would
# inherit that, but a signal that this process catches has its default action in a new program.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the tiers with several nodes can be told."""
    parser.addoption(
        "--balancing",
        choices=STATES,
        default=os.environ.get("SCHEDHOOK_BALANCING"),
        help="the kernel's NUMA balancing; default: SCHEDHOOK_BALANCING, or the tier's",
    )
    parser.addoption(
        "--dirty",
        action="store_true",
        default=bool(os.environ.get("SCHEDHOOK_DIRTY")),
        help="make the virtual machine a dirty host; default: if SCHEDHOOK_DIRTY is set",
    )
    parser.addoption(
        "--part", metavar="I/N", help="every N-th test file of a folder, from the I-th"
    )
    parser.addoption(
        "--thorough", action="store_true", help="all variants of tests that are marked `short`"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line(
        "markers", "balancing(state, …): with NUMA balancing on, off, or once with each"
    )
    config.addinivalue_line("markers", "dirty: also runs in the short run on a dirty host")
    config.addinivalue_line("markers", "short(count): so many of its variants, unless --thorough")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other parts, before they are imported."""
    if not (part := config.getoption("part")) or not collection_path.match("test_*.py"):
        return None
    first, count = map(int, part.split("/"))
    files = sorted(collection_path.parent.glob("test_*.py"))
    return files.index(collection_path) % count != first - 1 or None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect most variants of tests that are marked `short`, unless tests are named."""
    if config.getoption("thorough") or any("::" in each for each in config.args):
        return
    left_out = set(variants_to_leave_out(items))
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def variants_to_leave_out(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield all but so many variants of each test as its mark says, evenly spaced."""
    variants: dict[str, list[pytest.Item]] = {}
    for item in items:
        variants.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for its in variants.values():
        if mark := its[0].get_closest_marker("short"):
            wanted = mark.args[0]
            for at, item in enumerate(its):
                if at * wanted // len(its) == (at - 1) * wanted // len(its):
                    yield item
