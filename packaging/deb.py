"""Build the Debian package: python packaging/deb.py WHEEL DIRECTORY [REVISION]

One package serves Debian 12 and 13: its modules are in a private environment, /usr/lib/schedhook,
above Debian's own Python packages; the C core needs no particular version of Python. It is made
from the wheel, because Debian 12's setuptools cannot build one. Needs debhelper.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.utils import formatdate
from pathlib import Path

import layout

PROJECT = Path(__file__).resolve().parents[1]
CONTRIB = Path("packages/schedhook/cli/setup/contrib")
"""What the wheel has besides modules."""


def main(wheel: Path, directory: Path, revision: str = "1") -> None:
    """Lay out the package's sources, build it, and leave it in `directory`."""
    version = wheel.name.split("-")[1]
    work = PROJECT / f"build/deb/schedhook-{version}"
    shutil.rmtree(work.parent, ignore_errors=True)
    shutil.copytree(PROJECT / "packaging/debian", work / "debian")
    unpack(wheel, work / "packages")
    layout.write(work, system_packages=True)
    for name in ("man", "completions"):
        shutil.copytree(work / CONTRIB / name, work / name)
    write_debian(work / "debian", f"{version}-{revision}")
    with (work.parent / "log").open("wb") as log:
        words = ["dpkg-buildpackage", "--build=binary", "--unsigned-source", "--unsigned-changes"]
        if subprocess.run(words, cwd=work, stdout=log, stderr=log, check=False).returncode:
            sys.exit(f"dpkg-buildpackage failed; {work.parent / 'log'} says why")
    directory.mkdir(exist_ok=True)
    for package in work.parent.glob("*.deb"):
        print(shutil.copy(package, directory))


def unpack(wheel: Path, packages: Path) -> None:
    """Unpack the modules, with the modes that their files have in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for each in archive.infolist():
            path = Path(archive.extract(each, packages))
            path.chmod(0o755 if each.external_attr >> 16 & 0o100 else 0o644)
    (metadata,) = packages.glob("*.dist-info")
    (metadata / "RECORD").unlink()  # pip must not change what belongs to dpkg
    (metadata / "INSTALLER").write_text("dpkg\n")


def write_debian(debian: Path, version: str) -> None:
    """Write what debhelper reads besides packaging/debian: units, tmpfiles and changelog."""
    for unit in (debian.parent / "units").iterdir():
        name = "schedhook.tmpfiles" if unit.suffix == ".conf" else f"schedhook.{unit.name}"
        shutil.copy(unit, debian / name)
    control = (debian / "control").read_text(encoding="utf-8")
    (maintainer,) = re.findall(r"^Maintainer: (.*)$", control, re.MULTILINE)
    at = os.environ.get("SOURCE_DATE_EPOCH")
    (debian / "changelog").write_text(
        f"schedhook ({version}) unstable; urgency=medium\n\n"
        "  * CHANGELOG.md of the sources has the changes.\n\n"
        f" -- {maintainer}  {formatdate(float(at) if at else None)}\n"
    )


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
