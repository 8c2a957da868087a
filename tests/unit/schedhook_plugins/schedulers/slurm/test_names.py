"""Jobs as people write them: elements of arrays, components of heterogeneous jobs."""

from __future__ import annotations

import pytest

from schedhook.roles.scheduler import JobDescription
from schedhook.values.errors import UsageError
from schedhook_plugins.schedulers.slurm import names

ALIASES = {
    "37": "36_1",
    "38": "36_2",
    "36": "36_10",
    "50": "50+0",
    "51": "50+1",
    "60": "",
    "61": "61_[3-9:3,20%2]",
}
"""A heterogeneous job, a plain one, and two arrays, of one of which all elements wait."""


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("36_2", "38"),
        ("36_[2]", "38"),
        ("36_[2%4]", "38"),
        ("36_10", "36"),
        ("36_[2,5-9]", "38"),
        ("36_[2-8:2]", "38"),
        ("50+1", "51"),
        ("50+0", "50"),
        ("38", "38"),
        ("51", "51"),
        ("60", "60"),
        ("61_6", "61"),
        ("61_20", "61"),
        ("61_7", "61_7"),
        ("99", "99"),
        ("36_3", "36_3"),
        ("36+1", "36+1"),
        ("50_1", "50_1"),
        ("60_1", "60_1"),
        ("job", "job"),
    ],
)
def test_a_job_is_found_by_what_people_write(text: str, job: str) -> None:
    assert names.resolve(text, ALIASES) == job


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "36",
            "36 is an array; name one of its jobs: 36_10 (job 36), 36_1 (job 37), 36_2 (job 38)",
        ),
        ("50", "50 is a heterogeneous job; name one of its jobs: 50+0 (job 50), 50+1 (job 51)"),
        ("61", "61 is an array; name one of its jobs: 61_[3-9:3,20%2] (job 61)"),
        ("36_[1-2]", "36_[1-2] names several jobs; name one: 36_1 (job 37), 36_2 (job 38)"),
    ],
)
def test_a_text_that_names_several_jobs_lists_them(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.resolve(text, ALIASES)
    assert str(caught.value) == says


def test_of_very_many_elements_only_some_are_listed() -> None:
    with pytest.raises(UsageError, match=r"5_12 \(job 112\) and 88 more$"):
        names.resolve("5", {str(100 + each): f"5_{each}" for each in range(1, 101)})


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "01", "36_", "36_[", "36_[]", "36_[1,]", "36_[1:2]", "36_[a]", "36+", "36+x",
     "36 _2", "36_2\n", "\u0663_1", "12345678901", "36_-1", "4711.0"],
)  # fmt: skip
def test_what_slurms_users_do_not_write_names_no_job(text: str) -> None:
    assert names.parse(text) is None


@pytest.mark.parametrize(
    ("variables", "alias"),
    [
        ({}, ""),
        ({"SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "0"}, "36_0"),
        ({"SLURM_ARRAY_JOB_ID": "36"}, ""),
        ({"SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "x"}, ""),
        ({"SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "\u0662"}, ""),
        ({"SLURM_HET_JOB_ID": "50", "SLURM_HET_JOB_OFFSET": "1"}, "50+1"),
        ({"SLURM_JOB_ID_HET_GROUP_0": "37", "SLURM_JOB_ID_HET_GROUP_1": "38"}, "37+1"),
        ({"SLURM_JOB_ID_HET_GROUP_0": "x", "SLURM_JOB_ID_HET_GROUP_1": "38"}, ""),
    ],
)
def test_a_tasks_environment_tells_the_alias(variables: dict[str, str], alias: str) -> None:
    mine = variables | {"SLURM_JOB_ID": "38", "SLURM_JOB_NAME": "n" * 999}
    assert names.describe(mine, "38") == JobDescription(alias=alias, name="n" * 128)
    assert names.describe(mine, "39") is None, "the environment of another job"
    if "SLURM_JOB_ID_HET_GROUP_0" in variables:  # as Slurm 22.05 sets it for each component
        mine["SLURM_JOB_ID"] = "37"
        found = names.describe(mine, "38")
        assert (found.alias if found else "") == alias
    assert mine.keys() <= names.VARIABLES
