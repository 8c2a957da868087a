"""`schedhook plan`: what would move."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.unit.clikit import Run
from tests.unit.screenkit import MIB


def on(host: Path) -> list[object]:
    """Return the options for process 100 of the host."""
    return ["--root", host, "--backend", "simulated", "--pid", 100]


def test_a_plan_as_json(run: Run, host: Path) -> None:
    status, out, err = run("plan", *on(host), "--from", "0-1", "--to", "2,3", "--json")
    plan = json.loads(out)
    assert (status, err) == (0, "")
    assert plan["outcome"] == "planned"
    assert plan["node_map"] == {"0": 2, "1": 3}
    assert plan["bytes_planned"] == 12 * MIB
    assert plan["plan"]["moves"] == [
        {"from": 0, "to": 2, "bytes": 8 * MIB},
        {"from": 1, "to": 3, "bytes": 4 * MIB},
    ]


def test_help_lists_the_options_in_sections(run: Run) -> None:
    _, out, _ = run("plan", "--help")
    assert re.findall(r"^(\S.*):$", out, re.MULTILINE) == [
        "Which processes",
        "From which nodes to which",
        "What moves, and how",
        "Pace and limits",
        "Output",
        "Configuration and host",
    ]
    assert out.index("Which processes") < out.index("--job") < out.index("From which nodes")


def test_a_plan_for_people(run: Run, host: Path) -> None:
    status, out, _ = run("plan", *on(host), "--from", 0, "--to", 2)
    assert status == 0
    assert "planned" in out
    assert "8.0 MiB" in out
