"""The C core called from Python: under the compiler's sanitizers, and many times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import schedhook
from tests.unit.backends.native.test_engine import COMPILER, NATIVE, SANITIZE, STRICT, run

PROJECT = Path(__file__).parents[4]
REMOTE = "tests/unit/control/test_remote.py"
HOST = PROJECT / "schedhook/host"
MODULES = {
    "schedhook/backends/native/_core.abi3.so": sorted(NATIVE.glob("*.c")),
    "schedhook/host/_joined.abi3.so": [HOST / "_joined.c"],
}
WITH_JOINED = ("tests/unit/host/test_areas.py", "tests/unit/fuzz")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which schedhook's core is built with the sanitizers."""
    directory = tmp_path_factory.mktemp("sanitized")
    shutil.copytree(Path(schedhook.__file__).parent, directory / "schedhook")
    for module, sources in MODULES.items():
        run(
            *COMPILER,
            *("-g", "-O1", "-shared", "-fPIC", *STRICT, *SANITIZE, "-DPy_LIMITED_API=0x030B0000"),
            *(f"-I{sysconfig.get_path('include')}", "-o", directory / module, *sources),
            timeout=120,
        )
    runtime = run(*COMPILER, "-print-file-name=libasan.so", timeout=60).stdout.strip()
    return {
        **os.environ,
        "PYTHONPATH": str(directory),
        "PYTHONSAFEPATH": "1",
        "LD_PRELOAD": runtime,
        # The interpreter itself does not free everything; test_nothing_leaks checks the core.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }


@pytest.mark.parametrize("tests", ["tests/contract/test_native.py", REMOTE, *WITH_JOINED])
def test_nothing_is_wrong_under_the_sanitizers(tests: str, sanitized: dict[str, str]) -> None:
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [sys.executable, *words, str(PROJECT / tests)],
        env={**sanitized, "SCHEDHOOK_KILLS": "5", "SCHEDHOOK_REBINDS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Sanitizer" not in done.stdout + done.stderr


AGAIN = """
import mmap, os, resource, sys
from array import array
from contextlib import suppress
from schedhook.backends.native import _core
from schedhook.host._joined import join_mappings

assert "sanitized" in _core.__file__ or len(sys.argv) > 2, _core.__file__
memory = mmap.mmap(-1, 64 * mmap.PAGESIZE)
memory.write(b"x" * len(memory))
start = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps")
             if "/dev/zero" in line)
pidfd = os.pidfd_open(os.getpid())
pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
here = (os.getpid(), pidfd, -1, pagemap, start, start + len(memory), mmap.PAGESIZE,
        mmap.PAGESIZE, 0, False, -1, 0, b"")
gone = (1 << 22, *here[1:])
lines = [(each << 13, b"bind:0" if each > 50 else b"default") for each in range(99)]
numa_maps = b"".join(b"%x %b anon=1 N0=1 N%d=1\\n" % (at, policy, at % 1025)
                     for at, policy in lines)
maps = b"".join(b"%x-%x rw-p 0 0:0 0\\n" % (at, at + 8192 - at % 3 * 4096) for at, _ in lines)
stay, move = array("i", [-1] * 64).tobytes(), array("i", [0] * 64).tobytes()

def calls():
    runs = _core.locate(*here)
    assert sum(end - begin for begin, end, *_ in runs) == len(memory), runs
    _core.sweep(here, stay, b"", False, 1 << 20, 0)
    moved, failures, count, error = _core.sweep(here, move, b"", False, 1 << 20, 0)
    assert not error, error
    _core.sweep(here, move, array("Q", [start, start + 4096]).tobytes(), True, 1 << 20, 0)
    _core.check_access(os.getpid())
    _core.may_move_shared()
    _core.can_scan(pagemap)
    assert len(join_mappings(numa_maps, maps, True, 1 << 20, 1 << 20, 4096)) > 9
    for call, arguments in (
        (join_mappings, (b"", "", 0, 0, 0, 0)), (join_mappings, (maps, b"", True, -1, 0, 0)),
        (_core.locate, gone), (_core.sweep, (gone, move, b"", False, 1 << 20, 0)),
        (_core.check_access, (1 << 22,)), (_core.bind, (0, -1, b"")),
        (_core.migrate_pages, (1 << 22, -1, -1, b"\\1" * 8, b"\\1" * 8)),
        (_core.sweep, (here, b"odd", b"odd", False, 1, 0)), (_core.locate, ()),
        (_core.sweep, ((), move, b"", False, 1 << 20, 0)), (_core.sweep, (here[:3],) * 6),
        (_core.sweep, (here, move, b"", False, -1, -1)),
        (_core.migrate_pages, (1, -1, -1, "x", b"")),
        (_core.remote_stop, (1 << 22, 1)), (_core.remote_stop, (os.getpid(), 1)),
        (_core.remote_stop, ()),
        (_core.remote_frame, (b"short", 0)), (_core.remote_write, (1 << 22, 0, b"\\0" * 8)),
        (_core.remote_write, (1 << 22, 0, b"odd")), (_core.remote_enter, (1 << 22, b"", 0, 0)),
        (_core.remote_make, (1 << 22, 0, "mbind", 1)), (_core.remote_make, (0, 0, "exit", 1)),
        (_core.remote_make, (1, 0, "mbind", 1, *range(7))), (_core.remote_leave, (1, b"", 1)),
        (_core.bind, (1 << 22, -1, b"\\1" * 8)), (_core.bind, (0, 1 << 20, b"\\1" * 8)),
    ):
        with suppress(OSError, TypeError, ValueError, OverflowError):
            call(*arguments)

def locked():
    pages = int(open("/proc/self/statm").read().split()[1])
    return len(os.listdir("/proc/self/fd")), pages * mmap.PAGESIZE

for _ in range(200):
    calls()
before = locked()
for _ in range(int(sys.argv[1])):
    calls()
after = locked()
assert after[0] == before[0], (before, after)
assert len(sys.argv) == 2 or after[1] - before[1] < 1 << 20, (before, after)
print("kept nothing")
"""


def test_nothing_leaks() -> None:
    """10,000 rounds of 30 calls, valid and invalid, leave no descriptor and no memory behind."""
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}
    said = run_again("10000", "plain", environ=environ)
    assert said == "kept nothing\n"


def test_valid_and_invalid_calls_under_the_sanitizers(sanitized: dict[str, str]) -> None:
    # The sanitizer keeps freed memory for a while, so memory use is not checked here.
    environ = {**sanitized, "ASAN_OPTIONS": f"{sanitized['ASAN_OPTIONS']}:quarantine_size_mb=1"}
    assert run_again("500", environ=environ) == "kept nothing\n"


def run_again(*arguments: str, environ: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
