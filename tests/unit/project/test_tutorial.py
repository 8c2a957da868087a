"""Each step of the tutorial does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.stranger import PROJECT, Stranger

TEXT = (PROJECT / "docs/tutorial/first-plugin.md").read_text()
BLOCK = re.compile(r"([^\n]*\n)\n```(\w+)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"`([\w.]+\.(?:py|toml))`:$")


def test_every_step_does_what_it_says(stranger: Stranger, tmp_path: Path) -> None:
    done = set()
    for said, kind, text in BLOCK.findall(TEXT):
        if kind == "console":
            for command, expected in commands(text):
                ended = stranger.run("bash", "-c", f"exec 2>&1\n{command}", cwd=tmp_path)
                assert matches(ended.stdout, expected), (command, ended)
        else:
            file = FILE.search(said.strip())
            assert file, f"the text does not name the file: {said}"
            mode = "a" if "Add to" in said else "w"
            with (tmp_path / file[1]).open(mode) as stream:
                stream.write(("\n\n" if mode == "a" else "") + text)
        done.add(kind)
    assert done == {"toml", "python", "console"}
    assert len(BLOCK.findall(TEXT)) == TEXT.count("\n```") // 2, "a block was skipped"


def commands(text: str) -> list[tuple[str, str]]:
    """Return (command, expected output) for each `$ ` prompt; `> ` continues a command."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> "):
            command, _ = found.pop()
            found.append((f"{command}\n{line[2:]}", ""))
        else:
            command, expected = found.pop()
            found.append((command, f"{expected}{line}\n"))
    return found


def matches(printed: str, expected: str) -> bool:
    """Return whether the output is as expected; `…` is any text, trailing blanks are ignored."""
    parts = (re.escape(part) for part in expected.strip().split("…"))
    lines = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(".*".join(parts), lines, re.DOTALL) is not None


def test_the_comparison_can_fail() -> None:
    assert matches("one two three\n", "one … three")
    assert not matches("one two\n", "one … three")
    assert not matches("one two three\nfour\n", "one … three")
