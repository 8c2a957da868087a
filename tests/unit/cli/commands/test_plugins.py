"""`schedhook plugins`: what is installed, and what is broken."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.unit.clikit import SCHEDHOOK, Run


def test_what_ships_is_listed(run: Run) -> None:
    status, out, err = run("plugins", "--json")
    listed = json.loads(out)
    assert (status, err, listed["problems"]) == (0, "", [])
    assert {"role", "name", "summary", "provider", "package"} == set(listed["plugins"][0])
    names = {(each["role"], each["name"]) for each in listed["plugins"]}
    assert {("strategy", "move-pages"), ("mapper", "relative"), ("scheduler", "slurm")} <= names
    assert "move-pages" in run("plugins")[1]


def test_a_plug_in_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[schedhook]\nbroken = no_such_module\n")
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    for form in ("--json", None):
        command = [*SCHEDHOOK, "plugins", *filter(None, [form])]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "no_such_module" in done.stdout
