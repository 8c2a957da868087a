"""The C programs of these tests. In an emulated guest a compiler takes seconds for each, so

    python -m tests.numa.programs

compiles them beforehand, on its host; what is missing or old then is compiled where it is needed.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
READY = HERE.parents[1] / "build/tests"
MEMORY = Path("/dev/shm")
"""Where the tests find them: their files' pages are to be on no disk."""
THREADS, STATIC = "-pthread", "-static"
PROGRAMS = {
    "job": ("job.c", "churn.c", THREADS),
    # Few mappings make a short relocation, and so more of them.
    "crowd": ("crowd.c", STATIC),
    # Pages of a shared libc lie wherever they were first read to.
    "puppet": ("puppet.c", THREADS, STATIC),
    "profiled": ("profiled.c", THREADS),
    "recycle": ("recycle.c", THREADS),
}


@cache
def program(name: str, node: int | None = None) -> Path:
    """The path of a program, whose file lies on `node` where that is said."""
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
