"""The page mover in C over a fake kernel, under the compiler's sanitizers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[4] / "schedhook"
NATIVE = PACKAGE / "backends/native"
COMPILER = shlex.split(os.environ.get("CC") or "cc")
STRICT = ["-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SEEDS = 4000


def run(*command: str | Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command; a failure shows its output."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def engine_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("engine"))


def build(directory: Path) -> Path:
    """Build the program that runs the engine over the fake kernel."""
    program = directory / "engine_test"
    sources = [
        HERE / "engine_test.c",
        HERE / "fake_kernel.c",
        *(NATIVE / name for name in ("engine.c", "locate.c", "scanner.c", "survey.c")),
    ]
    run(
        *COMPILER,
        *("-g", "-O1", *STRICT, *SANITIZE, f"-I{NATIVE}", f"-I{HERE}", "-o", program),
        *sources,
        timeout=120,
    )
    return program


def test_every_page_is_accounted_for_once(engine_test: Path) -> None:
    """Run named and random scenarios; `engine_test SEED 1` repeats one that failed."""
    said = run(engine_test, "0", str(SEEDS), timeout=60).stdout
    named = (HERE / "engine_test.c").read_text().count("\n    run(")
    assert said.count("ok ") == named + 1
    assert said.endswith(f"ok {SEEDS} seeds\n")


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.c")), ids=lambda path: path.name)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_no_warnings(source: Path, level: str, tmp_path: Path) -> None:
    run(
        *COMPILER,
        *(level, *STRICT, "-DPy_LIMITED_API=0x030B0000"),
        *(f"-I{sysconfig.get_path('include')}", "-c", source, "-o", tmp_path / "out.o"),
        timeout=60,
    )
