"""Test tiers that need several NUMA nodes: pytest in the guest, as root, one boot per tier."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from tests.vm import machine

PROJECT = Path(__file__).parents[2]
NODES_NEEDED = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How the tests of a tier ended, as pytest's junit.xml says."""

    passed: int
    failed: int
    skipped: int

    @classmethod
    def read(cls, path: Path) -> Count:
        """Sum over the suites of the file."""
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))

        def total(attribute: str) -> int:
            return sum(int(suite.get(attribute, 0)) for suite in suites)

        failed = total("failures") + total("errors")
        skipped = total("skipped")
        return cls(passed=total("tests") - failed - skipped, failed=failed, skipped=skipped)


def memory_nodes(root: Path = Path("/sys/devices/system/node")) -> int:
    """How many NUMA nodes of this host have memory."""
    try:
        ranges = (root / "has_memory").read_text().strip()
    except FileNotFoundError:
        return 1
    bounds = [part.partition("-") for part in ranges.split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)


def pytest_command(tier: Path, results: Path) -> list[str]:
    """Pytest over ``tier``, naming each test so that a hang shows where."""
    command = [sys.executable, "-P", "-m", "pytest", str(tier), "-vv", "--durations=5"]
    # The guest has nowhere to keep a cache, and imports of unused plug-ins take seconds there.
    command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    return [*command, f"--junit-xml={results}/junit.xml"]


def run_in_guest(command: list[str], results: Path, seconds: float, setup: machine.Setup) -> bool:
    """Run ``command`` in a guest, printing its output; whether it ended with status 0."""
    output, status = results / "out", results / "status"
    exported = {name: os.environ[name] for name in ("CI",) if name in os.environ}
    exported["TESTS_IN_VM"] = "1"
    script = "\n".join(
        [
            f"cd {shlex.quote(str(PROJECT))}",
            "export " + shlex.join(f"{name}={value}" for name, value in exported.items()),
            f"{shlex.join(command)} < /dev/null > {shlex.quote(str(output))} 2>&1",
            f"echo $? > {shlex.quote(str(status))}",
        ]
    )
    with machine.running(script, shared=results, seconds=seconds, setup=setup) as guest:
        position = 0
        while True:
            ended = guest.poll() is not None or status.exists()
            position = machine.follow(output, position)
            if ended:
                break
            time.sleep(0.2)
    if status.exists() and status.read_text().strip():
        return int(status.read_text()) == 0
    console = (results / "console.log").read_text(errors="replace").splitlines()
    print("\n".join(["the guest's console ended with:", *console[-20:]]), file=sys.stderr)
    why = "hung" if guest.returncode in (124, 137) else "ended without a result"
    print(f"the guest {why} (limit {seconds:g} s)", file=sys.stderr)
    return False


def run_on_host(command: list[str], seconds: float) -> bool:
    """Run ``command`` here; whether it ended with status 0 in time."""
    try:
        return subprocess.run(command, cwd=PROJECT, timeout=seconds, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"the tests hung (limit {seconds:g} s)", file=sys.stderr)
        return False


def test(tiers: list[Path], *, seconds: float, force_vm: bool, setup: machine.Setup) -> int:
    """Run each tier; 0 only if each ran at least one test and all passed."""
    good = True
    for tier in tiers:
        results = PROJECT / "results" / tier.name
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        command = pytest_command(tier.resolve(), results)
        on_host = not force_vm and memory_nodes() >= NODES_NEEDED
        where = "this host" if on_host else "a virtual machine"
        print(f"{tier}: pytest on {where}", flush=True)
        if on_host:
            passed = run_on_host(command, seconds)
        else:
            passed = run_in_guest(command, results, seconds, setup)
        junit = results / "junit.xml"
        if passed and (not junit.exists() or Count.read(junit).passed == 0):
            print(f"{tier}: no test passed", file=sys.stderr)
            passed = False
        good = good and passed
    return 0 if good else 1


def summary(names: list[str]) -> int:
    """Print the count of each tier in results/ and, last, the sum; 1 if any failed or is missing.

    A tier without a result counts as one failure.
    """
    counts = {}
    for name in names:
        junit = PROJECT / "results" / name / "junit.xml"
        missing = Count(passed=0, failed=1, skipped=0)
        counts[name] = count = Count.read(junit) if junit.exists() else missing
        said = f"{count.passed} passed, {count.failed} failed, {count.skipped} skipped"
        print(f"{name}: {said if junit.exists() else 'did not run to its end'}")
    passed = sum(count.passed for count in counts.values())
    failed = sum(count.failed for count in counts.values())
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and all(count.passed for count in counts.values()) else 1
