"""An author of plug-ins, who has schedhook installed in a virtual environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "schedhook", "plugins")
_BUILT = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info")


@dataclass(frozen=True, slots=True)
class Stranger:
    """A virtual environment, and the directory in which its owner works."""

    directory: Path

    @property
    def environ(self) -> dict[str, str]:
        """Return variables without those of the environment in which the tests run."""
        names = ("HOME", "LANG", "PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_FIND_LINKS")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.directory}/env/bin:/usr/bin:/bin",
            "COLUMNS": "200",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def pip_install(self, *what: object) -> None:
        """Install packages or paths."""
        words = ["pip", "install", "--quiet", *map(str, what)]
        subprocess.run(words, check=True, env=self.environ, timeout=300)

    def run(
        self, *words: object, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the environment, with these variables added."""
        return subprocess.run(
            list(map(str, words)), check=False, capture_output=True, text=True, timeout=120,
            env=self.environ | environ, cwd=cwd or self.directory,
        )  # fmt: skip

    def schedhook(self, *words: object, **environ: str) -> dict[str, Any]:
        """Return what `schedhook … --json` prints."""
        done = self.run("schedhook", *words, "--json", **environ)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer


def make_stranger(directory: Path) -> Stranger:
    """Make a virtual environment with pytest, and schedhook from a copy of its sources."""
    source = directory / "source"
    source.mkdir()
    for name in _SOURCES:
        path = PROJECT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=_BUILT)
        else:
            shutil.copy(path, source)
    (source / "schedhook_plugins").symlink_to("plugins")
    subprocess.run([sys.executable, "-m", "venv", directory / "env"], check=True, timeout=120)
    stranger = Stranger(directory)
    stranger.pip_install(source, "pytest")
    return stranger
