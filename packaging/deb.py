"""Build the Debian package: python -P packaging/deb.py WHEEL DIRECTORY [REVISION]

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
    write_environment(work)
    write_texts(work)
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


def write_environment(work: Path) -> None:
    """Write what makes /usr/lib/schedhook an environment, and the program."""
    (work / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    (work / "bin").mkdir()
    program = work / "bin/schedhook"
    program.write_text(
        "#!/usr/lib/schedhook/bin/python3 -I\nfrom schedhook.cli.main import run\n\nrun()\n"
    )
    program.chmod(0o755)


def write_texts(work: Path) -> None:
    """Write the configuration, and copy manual pages and completions to where they are packaged."""
    guide = (PROJECT / "docs/how-to/operating.md").read_text(encoding="utf-8")
    (defaults,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    lines = [re.sub(r"^(?=\w)", "# ", line) for line in defaults.splitlines()]
    head = "# These are the defaults; remove the # of a line to change it.\n\n"
    (work / "config.toml").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    for name in ("man", "completions"):
        shutil.copytree(work / CONTRIB / name, work / name)


def write_debian(debian: Path, version: str) -> None:
    """Write what debhelper reads besides packaging/debian: units, tmpfiles and changelog."""
    systemd = PROJECT / "contrib/systemd"
    for unit in (*systemd.glob("*.service"), *systemd.glob("*.timer")):
        text = unit.read_text(encoding="utf-8").replace("@SCHEDHOOK@", "/usr/bin/schedhook")
        (debian / f"schedhook.{unit.name}").write_text(text, encoding="utf-8")
    shutil.copy(systemd / "schedhook.tmpfiles.conf", debian / "schedhook.tmpfiles")
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
