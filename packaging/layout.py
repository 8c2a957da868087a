"""Write what packages have besides the wheel's modules: python packaging/layout.py DIRECTORY

pyvenv.cfg and bin/schedhook, for a private environment in /usr/lib/schedhook; config.toml, with the
defaults in comments; units/, with the program's path. Needs no more than this Python.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PROGRAM = "#!/usr/lib/schedhook/bin/python3 -I\nfrom schedhook.cli.main import run\n\nrun()\n"


def write(directory: Path, *, system_packages: bool) -> None:
    """Write all files; `system_packages`: the environment also sees the distribution's packages."""
    write_environment(directory, system_packages=system_packages)
    write_config(directory / "config.toml")
    write_units(directory / "units")


def write_environment(directory: Path, *, system_packages: bool) -> None:
    """Write what makes /usr/lib/schedhook an environment, and the program."""
    (directory / "bin").mkdir(parents=True)
    said = str(system_packages).lower()
    text = f"home = /usr/bin\ninclude-system-site-packages = {said}\n"
    (directory / "pyvenv.cfg").write_text(text)
    program = directory / "bin/schedhook"
    program.write_text(PROGRAM)
    program.chmod(0o755)


def write_config(path: Path) -> None:
    """Write the configuration of the documentation, each key in a comment."""
    guide = (PROJECT / "docs/how-to/operating.md").read_text(encoding="utf-8")
    (defaults,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    lines = [re.sub(r"^(?=\w)", "# ", line) for line in defaults.splitlines()]
    head = "# These are the defaults; remove the # of a line to change it.\n\n"
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def write_units(directory: Path) -> None:
    """Write the units of systemd, and the file for systemd-tmpfiles(8)."""
    directory.mkdir()
    systemd = PROJECT / "contrib/systemd"
    for unit in (*systemd.glob("*.service"), *systemd.glob("*.timer")):
        text = unit.read_text(encoding="utf-8").replace("@SCHEDHOOK@", "/usr/bin/schedhook")
        (directory / unit.name).write_text(text, encoding="utf-8")
    shutil.copy(systemd / "schedhook.tmpfiles.conf", directory / "schedhook.conf")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), system_packages=False)
