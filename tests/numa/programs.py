"""What these tests need made: C programs, the example plug-in as a package, a database.

In an emulated guest the compiler takes seconds for each program, and pip a minute, so

    python -m tests.numa.programs

makes them on the host first. What is missing or outdated is made when it is needed.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.users import NOBODY

HERE = Path(__file__).parent
READY = HERE.parents[1] / "build/tests"
EXAMPLE = HERE.parents[1] / "plugins/example"
MEMORY = Path("/dev/shm")
"""Where the tests run them: the pages of their files must not be on a disk."""
THREADS, STATIC = "-pthread", "-static"
PROGRAMS = {
    "awkward": ("awkward.c", THREADS, STATIC),
    "bound": ("bound.c", THREADS, STATIC),
    "hung": ("hung.c", THREADS, STATIC),
    "job": ("job.c", "churn.c", THREADS),
    # Few mappings make a relocation short, so that more of them fit in a test.
    "crowd": ("crowd.c", STATIC),
    # Pages of a shared libc are on the node that read them first.
    "puppet": ("puppet.c", THREADS, STATIC),
    # What the kernel charges to its cgroup must be its own memory.
    "family": ("family.c", STATIC),
    "profiled": ("profiled.c", THREADS),
    "policies": ("policies.c", THREADS),
    "recycle": ("recycle.c", THREADS),
    "steady": ("steady.c", THREADS, STATIC),
    "hot": ("hot.c", THREADS, STATIC),
    "waiting": ("waiting.c", THREADS, STATIC),
}
ONLY_X86 = {"awkward"}
"""Tests of calls made in other processes, which this project can do on x86-64 only."""


@cache
def program(name: str, node: int | None = None) -> Path:
    """Return the path of a program, whose file's pages are on `node` if one is given."""
    binary, ready = MEMORY / f"schedhook-test-{name}", ready_program(name)
    command = compiler(name, binary)
    if is_ready(name):
        command = ["cp", "--remove-destination", ready, binary]
    there = [] if node is None else ["numactl", f"--membind={node}"]
    subprocess.run([*there, *command], check=True, timeout=120)
    return binary


def is_ready(name: str, page: int = mmap.PAGESIZE) -> bool:
    ready = ready_program(name, page)
    sources = (HERE / each for each in PROGRAMS[name] if each.endswith(".c"))
    made = ready.stat().st_mtime if ready.exists() else 0.0
    return all(source.stat().st_mtime < made for source in (*sources, *HERE.glob("*.h")))


def ready_program(name: str, page: int = mmap.PAGESIZE) -> Path:
    """Return where a program is that was made for this processor and pages of `page` bytes."""
    return READY / f"{os.uname().machine}-{page}" / name


def compiler(name: str, binary: Path, page: int = mmap.PAGESIZE) -> list[str | Path]:
    words = [HERE / word if word.endswith(".c") else word for word in PROGRAMS[name]]
    options = ["-O2", "-Wall", "-Wextra", "-Werror", f"-DPAGE={page}ul"]
    return ["gcc", *options, *words, "-o", binary]


def example() -> Path:
    """Return a directory in which the example plug-in is installed as a third party's package."""
    sources = [EXAMPLE / "pyproject.toml", *EXAMPLE.glob("*.py")]
    return prepared("example", install_example, max(file.stat().st_mtime for file in sources))


def install_example(place: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = shutil.copytree(EXAMPLE, f"{directory}/source")  # setuptools writes next to it
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
             "--no-build-isolation", "--disable-pip-version-check", "--target", place, source],
            check=True, timeout=300,
        )  # fmt: skip


def database() -> Path:
    """Return the directory of a PostgreSQL database with the tables of pgbench(1)."""
    program = postgresql("initdb")
    # A server reads only its own version's files, and a guest's may not be the host's.
    return prepared(f"database-{program.parents[1].name}", make_database, program.stat().st_mtime)


def make_database(place: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        Path(directory).chmod(0o755)
        data.mkdir()
        shutil.chown(data, NOBODY, NOBODY)
        server = f"-c listen_addresses= -c unix_socket_directories={data}"
        for name, *words in (
            ("initdb", "-N", "-k", "--wal-segsize=1", "-A", "trust", "-U", "postgres"),
            ("pg_ctl", "start", "-w", "-s", "-l", "/dev/null", "-o", server),
            ("pgbench", "-i", "-q", "-h", str(data), "-U", "postgres", "postgres"),
            ("pg_ctl", "stop", "-w", "-s"),
        ):
            subprocess.run(
                [postgresql(name), *words], check=True, timeout=300, capture_output=True,
                user=NOBODY, group=NOBODY, extra_groups=[], cwd=data, env={"PGDATA": str(data)},
            )  # fmt: skip
        shutil.copytree(data, place)


def postgresql(name: str) -> Path:
    """Return a program of PostgreSQL, which Debian keeps apart from those on the path."""
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))


def prepared(name: str, make: Callable[[Path], None], since: float) -> Path:
    """Return a directory that `make` fills: the host's if it is newer than `since`."""
    ready, mine = READY / name, MEMORY / f"schedhook-test-{name}"
    if ready.exists() and ready.stat().st_ctime > since:
        return ready
    place = mine if os.environ.get("TESTS_IN_VM") else ready
    shutil.rmtree(place, ignore_errors=True)
    make(place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.numa.programs", description=__doc__)
    parser.add_argument("--page", type=int, help="only the C programs, for pages of so many bytes")
    given: int | None = parser.parse_args().page
    READY.mkdir(parents=True, exist_ok=True)
    if given is None:
        example()
        database()
    page = given or mmap.PAGESIZE
    is_x86 = os.uname().machine == "x86_64"
    for name in PROGRAMS if is_x86 else PROGRAMS.keys() - ONLY_X86:
        if not is_ready(name, page):
            ready = ready_program(name, page)
            ready.parent.mkdir(exist_ok=True)
            subprocess.run(compiler(name, ready, page), check=True, timeout=300)


if __name__ == "__main__":
    main()
