"""Coverage-guided fuzzing with atheris: `python -m tests.unit.fuzz [--runs N] [TARGET…]`.

Each target runs in a process of its own, on inputs of up to 4 KiB; an input may take five seconds,
and the process 2 GiB. Inputs that fail are kept in corpus/TARGET, and test_fuzz.py runs them from
then on. `engine` is the page mover in C over a fake kernel, with random mappings. It is not guided:
with the named scenarios of engine_test.c, 400 random seeds cover 95.7 % of its lines and 20,000
cover 96.4 % (gcov); the rest handles lack of memory and failing system calls. The exit status is 1
if an input failed.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
LONGEST = 4096
ENGINE = "engine"


def fuzz(name: str, runs: int) -> bool:
    """Return whether the target handled `runs` inputs without a failure."""
    found = CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as seeds:
        words = [sys.executable, __file__, "--one", name, seeds, str(found)]
        words += [f"-runs={runs}", f"-max_len={LONGEST}", "-timeout=5", "-rss_limit_mb=2048"]
        words += [f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=1"]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    said = done.stderr.splitlines()
    executed = next((line.split()[-1] for line in said if "number_of_executed_units" in line), "?")
    print(f"{name}: {executed} inputs, {'broken' if done.returncode else 'stands'}", flush=True)
    if done.returncode:
        print("\n".join(said[-40:]), file=sys.stderr)
    with contextlib.suppress(OSError):
        found.rmdir()  # if nothing was found
    return done.returncode == 0


def fuzz_engine(runs: int) -> bool:
    """Return whether the page mover passed `runs` random seeds under the sanitizers."""
    from tests.unit.backends.native.test_engine import build  # noqa: PLC0415 - only here

    with tempfile.TemporaryDirectory() as directory:
        words = [build(Path(directory)), "0", str(runs)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    print(f"{ENGINE}: {runs} worlds, {'broken' if done.returncode else 'stands'}", flush=True)
    sys.stderr.write(done.stderr)
    return done.returncode == 0


def one(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, and exit."""
    import atheris  # noqa: PLC0415 - it is not wanted elsewhere

    with atheris.instrument_imports(include=["schedhook", "schedhook_plugins"]):
        # Last in the path, so that the installed package is fuzzed.
        sys.path.append(str(Path(__file__).parents[3]))
        from tests.unit.fuzz.targets import TARGETS  # noqa: PLC0415 - to be instrumented
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        Path(arguments[0], str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], target.run)
    atheris.Fuzz()


def main() -> int:
    from tests.unit.fuzz.targets import TARGETS  # noqa: PLC0415 - see `one`

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs per target")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}, {ENGINE}")
    options = parser.parse_args()
    names = options.targets or [*TARGETS, ENGINE]
    runs = options.runs
    stand = [fuzz_engine(runs) if name == ENGINE else fuzz(name, runs) for name in names]
    return 0 if all(stand) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
