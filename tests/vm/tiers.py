"""Test tiers that need several NUMA nodes: pytest in the guest, as root, one boot per tier."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.vm import machine, once, roots

RESULTS = roots.PROJECT / "results"
NODES_NEEDED = 4
PARTS = 3
"""Into how many guests a large tier is divided: more would share out the work better, but boot more
often."""
SPARE_MIB = 1024
"""What QEMU and the host need beside each guest's memory."""
FAULT_LINES = 8
FAULT_WIDTH = 300
"""How much of a failure the summary repeats."""
LAST_LINES = 40
"""How much it repeats of what a tier printed that did not run to its end."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The results of a tier's tests, from pytest's junit.xml."""

    passed: int
    failed: int
    skipped: int

    @classmethod
    def read(cls, path: Path) -> Count:
        """Return the sum over the suites of the file."""
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))

        def total(attribute: str) -> int:
            return sum(int(suite.get(attribute, 0)) for suite in suites)

        failed = total("failures") + total("errors")
        skipped = total("skipped")
        return cls(passed=total("tests") - failed - skipped, failed=failed, skipped=skipped)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Tests that run in one guest."""

    path: Path
    """Their folder, or one file."""
    name: str
    """The name of their results."""
    options: tuple[str, ...] = ()
    """Further options of pytest, or further files."""
    root: Path = roots.HOST_ROOT
    """The guest's root directory."""

    @classmethod
    def whole(cls, path: Path) -> Tier:
        """Return all tests of a folder or a file."""
        name = f"{path.parent.name}-{path.name}" if path.suffix else path.name
        # QEMU takes a colon in the name of a shared directory for the end of an option.
        return cls(path=path, name=re.sub(r"[^\w.-]+", "-", name))

    @classmethod
    def parts(cls, path: Path) -> list[Tier]:
        """Return the files of a folder in parts, for a guest each."""
        return [
            cls(path=path, name=f"{path.name}-{part}", options=("--part", f"{part}/{PARTS}"))
            for part in range(1, PARTS + 1)
        ]

    @classmethod
    def dirty(cls, path: Path) -> Tier:
        """Return the tests that are marked `dirty`, on a host made dirty."""
        return cls(path=path, name=f"{path.name}-dirty", options=("--dirty", "-m", "dirty"))

    def on(self, root: Path) -> Tier:
        """Return the same tests on another root, with results of their own, named after it."""
        return dataclasses.replace(self, name=f"{self.name}-{root.name}", root=root)

    @classmethod
    def elsewhere(cls, root: Path, paths: Sequence[Path]) -> Tier:
        """Return the tests of several files and folders, in one guest, on another root."""
        first, *others = (path.resolve() for path in paths)
        return cls(path=first, name=root.name, options=tuple(map(str, others)), root=root)


def pytest_command(tier: Tier, results: Path) -> list[str]:
    """Return the pytest command for ``tier``; it names each test, so that a hang is located."""
    # In the guest, importing unused plug-ins takes seconds. So does rewriting the assertions of
    # packages with a pytest plug-in, such as this one: the guest cannot cache the result.
    command = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"]
    command += [sys.executable, "-P", "-m", "pytest", str(tier.path.resolve()), *tier.options]
    command += ["-vv", "--durations=5"]
    command += ["-p", "no:cacheprovider"]
    # A test that takes this long shows where it is and fails; the guest goes on. Without
    # faulthandler_timeout: its dump of a thread that is running can crash the interpreter.
    command += ["-p", "pytest_timeout", "-o", "timeout=900"]
    return [*command, f"--junit-xml={results}/junit.xml"]


def test(tiers: list[Tier], *, seconds: float, force_vm: bool, setup: machine.Setup) -> int:
    """Run each tier; return 0 only if each ran at least one test and all passed.

    Guests run side by side, one for each processor, if there is memory for them: an emulated one
    keeps about one processor busy. On this host one tier runs after the other.
    """
    here = not force_vm and once.where(NODES_NEEDED) == "this host"

    def passes(tier: Tier) -> bool:
        return run(tier, seconds=seconds, nodes=NODES_NEEDED if here else None, setup=setup)

    if here or len(tiers) == 1:
        results = [passes(tier) for tier in tiers]
    else:
        results = side_by_side(passes, tiers, guests_at_a_time(setup.shape))
    return 0 if all(results) else 1


def guests_at_a_time(shape: machine.Shape) -> int:
    """Return how many guests of this shape the host can run at a time; at least one."""
    words = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
    fit = int(words[0]) // 1024 // (shape.mib + SPARE_MIB)
    return max(1, min(os.cpu_count() or 1, fit))


def side_by_side(passes: Callable[[Tier], bool], tiers: list[Tier], most: int) -> list[bool]:
    """Return what ``passes`` returned for each tier; each runs in a process of its own.

    At most `most` run at a time. The processes end with this one: each stops its guest at SIGTERM.
    """
    fork = multiprocessing.get_context("fork")
    free = fork.Semaphore(most)

    def work(tier: Tier) -> None:
        with free:
            sys.exit(0 if passes(tier) else 1)

    processes = [fork.Process(target=work, args=(tier,)) for tier in tiers]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [process.exitcode == 0 for process in processes]


def run(tier: Tier, *, seconds: float, nodes: int | None, setup: machine.Setup) -> bool:
    """Return whether the tests of ``tier`` passed, at least one of them."""
    if "--dirty" in tier.options or tier.root != roots.HOST_ROOT:
        nodes = None  # not on a developer's own host
    results = RESULTS / tier.name
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    if not roots.has_environment(tier.root):
        print(f"{tier.name}: {tier.root} has no {sys.prefix}: make trixie", file=sys.stderr)
        return False
    setup = dataclasses.replace(setup, root=tier.root)
    command = pytest_command(tier, results)
    print(f"{tier.name}: pytest on {once.where(nodes)}", flush=True)
    passed = once.run(command, results, seconds=seconds, nodes=nodes, setup=setup) == 0
    junit = results / "junit.xml"
    if passed and (not junit.exists() or Count.read(junit).passed == 0):
        print(f"{tier.name}: no test passed", file=sys.stderr)
        return False
    return passed


def failures(path: Path) -> Iterator[str]:
    """Yield the name of each test that failed by pytest's junit.xml, with where and why."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        for fault in (*case.iter("failure"), *case.iter("error")):
            lines = (fault.text or fault.get("message") or "").splitlines()
            said = [line for line in lines if line.startswith((">", "E "))][:FAULT_LINES]
            text = "\n".join(line[:FAULT_WIDTH] for line in [*said, *lines[-1:]])
            yield f"{case.get('classname')}::{case.get('name')}\n{textwrap.indent(text, '    ')}"


def table(names: Sequence[str]) -> Iterator[str]:
    """Yield a table in Markdown: the counts of each tier, and why tests were skipped."""
    yield "| Tests | Passed | Failed | Skipped | Why |"
    yield "|---|---|---|---|---|"
    for name in names:
        junit = RESULTS / name / "junit.xml"
        if not junit.exists():
            yield f"| {name} | did not run to its end | | | |"
            continue
        count = Count.read(junit)
        skips = ElementTree.parse(junit).getroot().iter("skipped")
        reasons = Counter(str(skip.get("message")) for skip in skips)
        why = "; ".join(f"{reason} ({times})" for reason, times in reasons.most_common())
        yield f"| {name} | {count.passed} | {count.failed} | {count.skipped} | {why} |"


def outcomes(columns: Mapping[str, Sequence[str]], files: Sequence[str]) -> Iterator[str]:
    """Yield a table in Markdown: what became of each test of `files` in each column.

    A column is a kind of host with its tiers; a cell has the number of cases that passed.
    """
    cells: dict[str, dict[str, Counter[str]]] = {}
    for column, names in columns.items():
        for name in names:
            for case in ElementTree.parse(RESULTS / name / "junit.xml").iter("testcase"):
                file = str(case.get("classname")).rpartition(".")[2]
                if file in files:
                    test = f"{file}: {str(case.get('name')).partition('[')[0]}"
                    cells.setdefault(test, {}).setdefault(column, Counter())[_outcome(case)] += 1
    yield f"| Test | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for test, found in sorted(cells.items()):
        words = [_cell(found.get(column, Counter())) for column in columns]
        yield f"| `{test}` | {' | '.join(words)} |"


def _outcome(case: ElementTree.Element) -> str:
    """Return `passed`, `failed` or why a test was skipped."""
    if (skipped := case.find("skipped")) is not None:
        return str(skipped.get("message"))
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"


def _cell(found: Counter[str]) -> str:
    passed = found.pop("passed", 0)
    words = [f"{times} {why}" if why == "failed" else why for why, times in found.items()]
    return "; ".join([*([str(passed)] if passed else []), *words]) or "not run"


def end_of(results: Path) -> str:
    """Return the last lines of what a tier printed, and of its guest's console."""
    lines = []
    for path in (results / "out", results / "console.log"):
        if path.exists():
            lines += path.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return "\n".join(line[:FAULT_WIDTH] for line in lines) or "nothing"


def summary(names: list[str]) -> int:
    """Print each failure, the counts of each tier and their sum; return 1 if a test failed.

    A tier without a result counts as one failure.
    """
    for junit in (RESULTS / name / "junit.xml" for name in names):
        if junit.exists():
            for failure in failures(junit):
                print(f"failed: {failure}")
        else:
            print(
                f"{junit.parent.name} ended with:\n{textwrap.indent(end_of(junit.parent), '    ')}"
            )
    counts = {}
    for name in names:
        junit = RESULTS / name / "junit.xml"
        missing = Count(passed=0, failed=1, skipped=0)
        counts[name] = count = Count.read(junit) if junit.exists() else missing
        said = f"{count.passed} passed, {count.failed} failed, {count.skipped} skipped"
        print(f"{name}: {said if junit.exists() else 'did not run to its end'}")
    passed = sum(count.passed for count in counts.values())
    failed = sum(count.failed for count in counts.values())
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and all(count.passed for count in counts.values()) else 1
