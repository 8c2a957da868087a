"""The program bound.c, which has memory policies and says on which nodes it gets memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.values.policy import PolicyMode
from tests.unit.control.talking import Talking, talking

THREADS = 3
ONLY_X86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="policies are rewritten on x86-64 only"
)
Run = Callable[..., tuple[int, dict[str, Any]]]
"""The fixture `run`."""
_WEIGHTS = Path("/sys/kernel/mm/mempolicy/weighted_interleave")


def skip_without(mode: int) -> None:
    """Skip a test of a mode that this kernel does not have; before 6.9: weighted interleave."""
    if mode == PolicyMode.WEIGHTED_INTERLEAVE and not _WEIGHTS.exists():
        pytest.skip("this kernel has no weighted interleave")


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


def joining(group: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
