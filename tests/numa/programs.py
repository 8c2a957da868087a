"""The C programs of these tests.

In an emulated guest the compiler takes seconds for each, so

    python -m tests.numa.programs

compiles them on the host first. A missing or outdated program is compiled when it is needed.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
READY = HERE.parents[1] / "build/tests"
MEMORY = Path("/dev/shm")
"""Where the tests run them: the pages of their files must not be on a disk."""
THREADS, STATIC = "-pthread", "-static"
PROGRAMS = {
    "awkward": ("awkward.c", THREADS, STATIC),
    "bound": ("bound.c", THREADS, STATIC),
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
}


@cache
def program(name: str, node: int | None = None) -> Path:
    """Return the path of a program, whose file's pages are on `node` if one is given."""
    binary, ready = MEMORY / f"schedhook-test-{name}", READY / name
    command = ["cp", "--remove-destination", ready, binary]
    if not is_ready(name):
        command = compiler(name, binary)
    there = [] if node is None else ["numactl", f"--membind={node}"]
    subprocess.run([*there, *command], check=True, timeout=120)
    return binary


def is_ready(name: str) -> bool:
    ready, sources = READY / name, (each for each in PROGRAMS[name] if each.endswith(".c"))
    made = ready.stat().st_mtime if ready.exists() else 0.0
    return all((HERE / source).stat().st_mtime < made for source in sources)


def compiler(name: str, binary: Path) -> list[str | Path]:
    words = [HERE / word if word.endswith(".c") else word for word in PROGRAMS[name]]
    return ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *words, "-o", binary]


def main() -> None:
    READY.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        if not is_ready(name):
            subprocess.run(compiler(name, READY / name), check=True, timeout=120)


if __name__ == "__main__":
    main()
