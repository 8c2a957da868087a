"""Run every command with each set of versions, and print a table.

    python -m tests.release.versions DIST [--python PROGRAM…] [--suite SUITE…] [--units]

DIST has the wheel and the Debian package. The wheel is tried with the lowest and with the newest
versions of what it depends on, on each Python; wheel and package with a distribution's own, each
in a fresh root of its SUITE, which needs root. --units: the unit tests too, in the first two.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TOUR = PROJECT / "tests/release/tour.py"
INSIDE = PROJECT / "tests/release/inside.sh"
MIRROR = "http://deb.debian.org/debian"
DEPENDENCIES = "python3-click,python3-pluggy,python3-rich,python3-structlog,python3-tenacity"
WITH_WHEEL = f"ca-certificates,python3-venv,python3-prometheus-client,{DEPENDENCIES}"
NAMES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
UNIT_TESTS = ("tests/unit", "tests/contract", "tests/pbs")
WIDTHS = (14, 8, 9, 22, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A row of the table."""

    versions: str
    python: str
    package: str
    commands: str
    """How `tour.py` has ended: `24 passed, 0 failed`."""
    units: str = "-"

    @property
    def failed(self) -> bool:
        """Whether a command or a unit test failed, or none ran."""
        ran = [self.commands, *([self.units] if self.units != "-" else [])]
        return any(
            "passed" not in each or re.search(r"[1-9]\d* (failed|error)", each) for each in ran
        )

    def __str__(self) -> str:
        cells = (self.versions, self.python, self.package, self.commands, self.units)
        return "".join(
            f"{cell:{width}}" for cell, width in zip(cells, WIDTHS, strict=True)
        ).rstrip()


def lowest() -> list[str]:
    """Return the dependencies, and those for metrics, each as `name==version`."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    pinned = [re.sub(r">=([\w.]+).*", r"==\1", each) for each in ranges]
    assert all("==" in each for each in pinned), "a dependency without a lowest version"
    return pinned


def environments(wheel: Path, pythons: Sequence[str], units: bool) -> Iterator[Leg]:
    """Yield the rows of the wheel with the lowest and the newest versions."""
    for program in pythons:
        for versions, pins in (("lowest", lowest()), ("newest", [])):
            with tempfile.TemporaryDirectory(prefix="schedhook-versions-") as name:
                python = Path(name, "bin/python")
                extra = "metrics,dev" if units else "metrics"
                output([program, "-m", "venv", name])
                words = [python, "-m", "pip", "install", "--quiet", "--upgrade"]
                output([*words, f"schedhook[{extra}] @ file://{wheel}", *pins])
                yield Leg(
                    versions=versions,
                    python=version_of([python]),
                    package="wheel",
                    commands=last_line([python, "-P", TOUR]),
                    units=run_units(python) if units else "-",
                )


def run_units(python: Path) -> str:
    """Return how the unit tests end."""
    words = [python, "-P", "-m", "pytest", "-n", "4", "--dist", "loadfile", *UNIT_TESTS]
    return last_line(words, PYTHONSAFEPATH="1")


def distribution(suite: str, wheel: Path, deb: Path) -> Iterator[Leg]:
    """Yield the rows of wheel and package in a fresh root of a distribution, with its packages."""
    with tempfile.TemporaryDirectory(prefix="schedhook-versions-") as name:
        root = Path(name, "root")
        bootstrap = ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={WITH_WHEEL}"]
        output([*bootstrap, suite, root, MIRROR])
        inside = [INSIDE, root]
        for file in (wheel, deb, TOUR):
            (root / "root" / file.name).write_bytes(file.read_bytes())
        python = version_of([*inside, "python3"])
        output([*inside, "python3", "-m", "venv", "--system-site-packages", "/opt/schedhook"])
        pip = ["/opt/schedhook/bin/python", "-m", "pip", "install", "--quiet"]
        output([*inside, *pip, "--no-deps", f"/root/{wheel.name}"])
        ran = last_line([*inside, "/opt/schedhook/bin/python", "-P", "/root/tour.py"])
        yield Leg(versions=NAMES.get(suite, suite), python=python, package="wheel", commands=ran)
        output([*inside, "apt-get", "install", "--yes", "--quiet", f"/root/{deb.name}"])
        words = ["/usr/lib/schedhook/bin/python3", "-P", "/root/tour.py", "/usr/bin/schedhook"]
        ran = last_line([*inside, *words])
        yield Leg(versions=NAMES.get(suite, suite), python=python, package="deb", commands=ran)


def version_of(python: Sequence[object]) -> str:
    """Return `3.11` of the interpreter that these words start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return output([*python, "-c", code]).strip()


def output(words: Sequence[object]) -> str:
    """Return the standard output of a program. Raise CalledProcessError if it fails."""
    return subprocess.run(
        list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ).stdout


def last_line(words: Sequence[object], **environ: str) -> str:
    """Return the last line that a program prints, whatever its exit status."""
    done = subprocess.run(
        list(map(str, words)), check=False, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
        env=os.environ | environ,
    )  # fmt: skip
    return (done.stdout.strip().splitlines() or [f"exit status {done.returncode}"])[-1].strip("= ")


def main() -> int:
    """Print a row for each leg as it ends; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--python", nargs="*", default=[sys.executable])
    parser.add_argument("--suite", nargs="*", default=[])
    parser.add_argument("--units", action="store_true")
    options = parser.parse_args()
    (wheel,), (deb,) = options.dist.resolve().glob("*.whl"), options.dist.resolve().glob("*.deb")
    print(
        Leg(
            versions="versions",
            python="Python",
            package="package",
            commands="commands",
            units="unit tests",
        )
    )
    failed = False
    legs = [environments(wheel, options.python, options.units)]
    legs += [distribution(suite, wheel, deb) for suite in options.suite]
    for rows in legs:
        for leg in rows:
            print(leg, flush=True)
            failed |= leg.failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
