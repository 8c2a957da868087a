"""Slurm's answers are read, and refused if their shape is unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schedhook_plugins.schedulers.slurm.answers import (
    JobAnswer,
    Unreadable,
    job_in_pyslurm,
    jobs_in_json,
    jobs_in_squeue,
)


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        ("6|6|n[1-2]\n", [JobAnswer(number="6", hosts=("n1", "n2"))]),
        ("  6|6|n1  \n", [JobAnswer(number="6", hosts=("n1",))]),
        ("6|6|\n", [JobAnswer(number="6")]),
        ("38|36_2|n2\n", [JobAnswer(number="38", alias="36_2", hosts=("n2",))]),
        ("51|50+1|n1\n", [JobAnswer(number="51", alias="50+1", hosts=("n1",))]),
        ("36|36_[3-4%1]|\n", [JobAnswer(number="36", alias="36_[3-4%1]")]),
        ("", []),
        ("6\n", []),
        ("6|n1\n", []),
    ],
)
def test_squeues_lines_are_read(text: str, jobs: list[JobAnswer]) -> None:
    assert jobs_in_squeue(text) == jobs


NONE = {"set": False, "infinite": False, "number": 0}


def number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


@pytest.mark.parametrize(
    ("job", "alias"),
    [
        ({}, ""),
        ({"array_job_id": 0, "array_task_id": None, "het_job_id": 0, "het_job_offset": 0}, ""),
        ({"array_job_id": 36, "array_task_id": 2}, "36_2"),
        ({"array_job_id": 36, "array_task_id": 0}, "36_0"),
        ({"array_job_id": 36, "array_task_id": None, "array_task_string": "3-9%2"}, "36_[3-9%2]"),
        ({"array_job_id": number(36), "array_task_id": number(2)}, "36_2"),
        ({"array_job_id": number(0), "array_task_id": NONE, "het_job_id": NONE}, ""),
        ({"het_job_id": 50, "het_job_offset": 0}, "50+0"),
        ({"het_job_id": number(50), "het_job_offset": number(1)}, "50+1"),
    ],
)
def test_an_alias_is_read_from_json(job: dict[str, Any], alias: str) -> None:
    text = json.dumps({"jobs": [{"job_id": 38, "nodes": "n1", **job}]})
    assert jobs_in_json(text) == [JobAnswer(number="38", alias=alias, hosts=("n1",))]


def test_json_without_jobs_has_none() -> None:
    assert jobs_in_json('{"jobs": []}') == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"hosts": 3}', '{"hosts": "n["}', pytest.param("[" * 100_000, id="nested")],
)
def test_an_answer_of_another_shape_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        job_in_pyslurm(text)
    with pytest.raises(Unreadable):
        jobs_in_json(text)
