"""What is released: the source distribution, and the wheel that is built from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.cli.main import COMMANDS
from schedhook.cli.setup.targets import COMPLETIONS as SHELLS

PROJECT = Path(__file__).parents[3]
FORGE = (".ci/", ".github/", ".gitignore")
"""Files in version control that the source distribution does not need."""
EXECUTABLE = 0o100


def tracked() -> list[str]:
    """Return the files in version control, and links as one file each."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a clone: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name and (PROJECT / name).exists()]


def build(kind: str, source: Path, directory: Path) -> Path:
    """Build a distribution of `source` in `directory`; kind is `sdist` or `wheel`."""
    program = f"import sys; from setuptools.build_meta import build_{kind} as b; b(sys.argv[1])"
    words = [sys.executable, "-c", program, directory]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = directory.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source distribution of this checkout, unpacked; made as `make dist` does."""
    directory = tmp_path_factory.mktemp("sdist")
    checkout = directory / "checkout"
    for name in tracked():
        copy = checkout / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_symlink():
            copy.symlink_to((PROJECT / name).readlink())
        else:
            copy.write_bytes((PROJECT / name).read_bytes())
            copy.chmod((PROJECT / name).stat().st_mode)
    man = [sys.executable, "-P", PROJECT / "docs/man.py", checkout / "contrib"]
    subprocess.run(man, check=True)
    archive = build("sdist", checkout, directory)
    (directory / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", directory / "unpacked"], check=True)
    (found,) = (directory / "unpacked").iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Yield the wheel that is built from the source distribution."""
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def test_the_source_distribution_has_all_that_is_in_version_control(unpacked: Path) -> None:
    for name in tracked():
        if not name.startswith(FORGE):
            here, there = PROJECT / name, unpacked / name
            assert there.is_symlink() == here.is_symlink(), name
            assert there.is_dir() or there.read_bytes() == here.read_bytes(), name


def test_the_wheel_has_the_files_of_contrib_as_they_are(wheel: zipfile.ZipFile) -> None:
    found = {name for name in wheel.namelist() if name.startswith("schedhook/cli/setup/contrib/")}
    wanted = [name for name in tracked() if name.startswith("contrib/")]
    written = {name for name in found if "/contrib/man/" in name or "/contrib/completions/" in name}
    assert found - written == {f"schedhook/cli/setup/{name}" for name in wanted}
    for name in wanted:
        here, there = PROJECT / name, wheel.getinfo(f"schedhook/cli/setup/{name}")
        assert wheel.read(there) == here.read_bytes(), name
        mode = there.external_attr >> 16
        assert mode & EXECUTABLE == here.stat().st_mode & EXECUTABLE, name


def test_the_wheel_is_one_for_all_versions_of_python(wheel: zipfile.ZipFile) -> None:
    """It has the C core for CPython's limited API, and no file of another top-level package."""
    compiled = {name for name in wheel.namelist() if name.endswith(".so")}
    assert compiled == {"schedhook/backends/native/_core.abi3.so", "schedhook/host/_joined.abi3.so"}
    top = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert top == {"schedhook", "schedhook_plugins"}
    assert "-cp311-abi3-" in Path(wheel.filename or "").name


def test_manual_pages_and_completions_are_in_both(unpacked: Path, wheel: zipfile.ZipFile) -> None:
    pages = ["man/schedhook.1", "man/job-migrate.1", *(f"man/schedhook-{n}.1" for n in COMMANDS)]
    for name in (*pages, *(f"completions/{shell}/{file}" for shell, (file, _) in SHELLS.items())):
        text = wheel.read(f"schedhook/cli/setup/contrib/{name}")
        assert text == (unpacked / "contrib" / name).read_bytes() != b""
