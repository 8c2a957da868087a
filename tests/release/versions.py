"""Run every command with each set of versions, and print a table.

    python -m tests.release.versions DIST [--suite SUITE…] [--units] [--workers N]

DIST has the wheel and the Debian package. Each SUITE of Debian has its own Python; in a fresh root
of it, the wheel is tried with the lowest and with the newest versions of what it depends on and
with the distribution's own, and the package. Needs root. --units: the unit tests, too.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
INSIDE = PROJECT / "tests/release/inside.sh"
MAKE_ROOT = PROJECT / "tests/vm/debian_root.sh"
DEPENDENCIES = [
    *("python3-venv", "python3-prometheus-client", "python3-click", "python3-pluggy"),
    *("python3-rich", "python3-structlog", "python3-tenacity"),
]
# What the unit tests need besides: programs, a compiler, and git for what it keeps.
FOR_UNITS = ["gcc", "git", "libc6-dev", "make", "mount", "numactl", "python3-dev"]
HERE = "/root/schedhook"
"""The project in a root: the unit tests use its files."""
TOUR = f"{HERE}/tests/release/tour.py"
NAMES = {"bookworm": "Debian 12", "trixie": "Debian 13", "sid": "Debian sid"}
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


FIND_MODULES = """
import pathlib, schedhook
print(pathlib.Path(schedhook.__file__).resolve().parents[1])
"""


def lowest() -> list[str]:
    """Return the dependencies, and those for metrics, each as `name==version`."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    pinned = [re.sub(r">=([\w.]+).*", r"==\1", each) for each in ranges]
    assert all("==" in each for each in pinned), "a dependency without a lowest version"
    return pinned


@dataclass(frozen=True, slots=True)
class Root:
    """A fresh root of a distribution, with the project in it."""

    path: Path
    suite: str
    python: str
    """The version of its Python."""
    workers: int
    """How many run the unit tests; 0: they do not run."""

    def run(self, *words: object) -> str:
        """Return the standard output of a program in it; raise CalledProcessError if it fails."""
        return output([INSIDE, self.path, *words])

    def leg(self, versions: str, package: str, program: Sequence[str], python: str) -> Leg:
        """Run every command by the words of `program`, and the unit tests by `python`."""
        in_project = [INSIDE, self.path, "env", "-C", HERE, "PYTHONSAFEPATH=1"]
        units = [python, "-m", "pytest", "-n", self.workers, "--dist", "loadfile", *UNIT_TESTS]
        return Leg(
            versions=versions,
            python=self.python,
            package=package,
            commands=last_line([INSIDE, self.path, program[0], "-P", TOUR, *program[1:]]),
            units=last_line([*in_project, *units]) if self.workers else "-",
        )

    def environment(self, name: str, requirements: Sequence[str], *options: str) -> str:
        """Make a virtual environment, and return its Python."""
        self.run("python3", "-m", "venv", *options, f"/opt/{name}")
        python = f"/opt/{name}/bin/python"
        self.run(python, "-m", "pip", "install", "--quiet", *requirements)
        return python


@contextmanager
def fresh_root(suite: str, files: Sequence[Path], workers: int) -> Iterator[Root]:
    """Make a root with these files in /root, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="schedhook-versions-") as name:
        path = Path(name, "root")
        programs = tests_programs() if workers else []
        output([MAKE_ROOT, suite, path, *DEPENDENCIES, *(FOR_UNITS if workers else []), *programs])
        for file in files:
            (path / "root" / file.name).write_bytes(file.read_bytes())
        output(["git", "clone", "--quiet", PROJECT, f"{path}{HERE}"])
        yield Root(path, suite, version_of([INSIDE, path, "python3"]), workers)


def legs(root: Root, wheel: Path, deb: Path) -> Iterator[Leg]:
    """Yield the rows of a root, each when it was tried."""
    extra = "test" if root.workers else "metrics"
    from_wheel = f"schedhook[{extra}] @ file:///root/{wheel.name}"
    for versions, pins in (("lowest", lowest()), ("newest", [])):
        python = root.environment(versions, [from_wheel, *pins])
        yield root.leg(versions, "wheel", [python], python)
    own = root.environment("own", ["--no-deps", f"/root/{wheel.name}"], "--system-site-packages")
    if root.workers:
        root.run(own, "-m", "pip", "install", "--quiet", from_wheel)
    yield root.leg(NAMES.get(root.suite, root.suite), "wheel", [own], own)
    root.run("apt-get", "install", "--yes", "--quiet", f"/root/{deb.name}")
    packaged = "/usr/lib/schedhook/bin/python3"
    # The same tests, on the package's modules.
    root.run(own, "-m", "pip", "uninstall", "--quiet", "--yes", "schedhook")
    where = root.run(packaged, "-P", "-c", FIND_MODULES).strip()
    root.run("sh", "-c", f"echo {where} > $(echo /opt/own/lib/python3*/site-packages)/deb.pth")
    root.run("ln", "-s", "/usr/bin/schedhook", "/opt/own/bin/schedhook")
    program = [packaged, "/usr/bin/schedhook"]
    yield root.leg(NAMES.get(root.suite, root.suite), "deb", program, own)


def tests_programs() -> list[str]:
    """Return the packages that `make unit` installs."""
    makefile = (PROJECT / "Makefile").read_text()
    found = re.search(r"^UNIT_PACKAGES := (.*)$", makefile, re.MULTILINE)
    assert found, "the Makefile names no packages for the unit tests"
    return found[1].split()


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
    """Return the last line that a program prints, whatever its exit status.

    What failed, as pytest says it, is printed on standard error.
    """
    done = subprocess.run(
        list(map(str, words)), check=False, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
        env=os.environ | environ,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
    print(
        *(each for each in lines if each.startswith(("FAILED", "ERROR"))),
        sep="\n",
        end="\n",
        file=sys.stderr,
    )
    return lines[-1].strip("= ")


def main() -> int:
    """Print a row for each leg as it ends; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--suite", nargs="*", default=list(NAMES))
    parser.add_argument("--units", action="store_true")
    parser.add_argument("--workers", type=int, default=4, help="that run the unit tests")
    options = parser.parse_args()
    (wheel,), (deb,) = options.dist.resolve().glob("*.whl"), options.dist.resolve().glob("*.deb")
    heading = {"versions": "versions", "python": "Python", "package": "package"}
    print(Leg(**heading, commands="commands", units="unit tests"), flush=True)
    failed = False
    for suite in options.suite:
        with fresh_root(suite, (wheel, deb), options.workers if options.units else 0) as root:
            for leg in legs(root, wheel, deb):
                print(leg, flush=True)
                failed |= leg.failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
