"""The kernel's NUMA balancing during a test of a tier that needs several nodes.

Each tier's conftest says whether it runs with it; SCHEDHOOK_BALANCING, `on` or `off`, overrides
that, and pytest's option `--balancing` both.
`@pytest.mark.balancing("off")` marks a test of single pages, which the kernel must not move;
`@pytest.mark.balancing("on", "off")` runs a test both ways unless the option names one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

STATES = ("on", "off")
_SWITCH = Path("/proc/sys/kernel/numa_balancing")
_SCAN = Path("/sys/kernel/debug/sched/numa_balancing")
_HASTE = {"scan_delay_ms": 50, "scan_period_min_ms": 50}
"""Jobs run for days and tests for seconds: by default the kernel waits a second between scans."""


@contextmanager
def setting(path: str | Path, value: object) -> Iterator[None]:
    """Change a setting of the kernel for the block."""
    file = Path(path)
    choices = file.read_text().split()
    before = next((word.strip("[]") for word in choices if word.startswith("[")), choices[0])
    file.write_text(str(value))
    try:
        yield
    finally:
        file.write_text(before)


@contextmanager
def balanced(state: str) -> Iterator[None]:
    """Switch NUMA balancing on, with frequent scans, or off for the block.

    A kernel without it runs the block as it is: there is nothing to switch off.
    """
    with ExitStack() as stack:
        if state == "on" or _SWITCH.exists():
            stack.enter_context(setting(_SWITCH, int(state == "on")))
        for name, value in _HASTE.items() if state == "on" else ():
            stack.enter_context(setting(_SCAN / name, value))
        yield


def states_of(test: pytest.Item | pytest.Function, default: str) -> tuple[str, ...]:
    """Return with which states a test runs."""
    option = test.config.getoption("balancing")
    marker = test.get_closest_marker("balancing")
    marked = tuple(marker.args) if marker else (option or default,)
    assert set(marked) <= set(STATES), marked
    return (option,) if option in marked else marked
