"""Slurm's answers are read for one job only, and refused if their shape is unknown."""

from __future__ import annotations

import pytest

from schedhook_plugins.schedulers.slurm.answers import (
    Unreadable,
    hosts_in_json,
    hosts_in_pyslurm,
    hosts_in_squeue,
)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("6|n[1-2]\n", ("n1", "n2")),
        ("  6|n1  \n", ("n1",)),
        ("6|\n", ()),
        ("16|n1\n6|n2\n", ("n2",)),
        ("", None),
        ("6\n", None),
        ("66|n1\n", None),
    ],
)
def test_squeues_line_of_the_job_is_read(text: str, hosts: tuple[str, ...] | None) -> None:
    assert hosts_in_squeue(text, "6") == hosts


def test_json_of_other_jobs_only_has_no_such_job() -> None:
    assert hosts_in_json('{"jobs": [{"job_id": 16, "nodes": "n1"}]}', "6") is None
    assert hosts_in_json('{"jobs": []}', "6") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"hosts": 3}', '{"hosts": "n["}', pytest.param("[" * 100_000, id="nested")],
)
def test_an_answer_of_another_shape_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        hosts_in_pyslurm(text)
    with pytest.raises(Unreadable):
        hosts_in_json(text, "6")
