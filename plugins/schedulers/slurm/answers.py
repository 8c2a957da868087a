"""Slurm's answers about jobs: numbers, aliases and hosts, from JSON, text and pyslurm.

Each function returns what the answer has, none if it names no job, and raises Unreadable if it is
not an answer of a known shape. A job that has not started has no hosts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schedhook.values.errors import SchedhookError
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.names import component, element

SQUEUE_FORMAT = "%A|%i|%N"
"""squeue --format: the job's number, the job as people write it, and its list of hosts."""


class Unreadable(SchedhookError):
    """An answer is not of a shape that this version of schedhook knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswer:
    """What Slurm says of one job."""

    number: str
    alias: str = ""
    """`36_2`, `50+1`; `36_[3-9]` for elements that wait; empty if people write the number."""
    hosts: tuple[str, ...] = ()


def jobs_in_json(text: str) -> list[JobAnswer]:
    """Read squeue's or scontrol's JSON, in the shapes of 22.05 and of 25.11."""
    jobs = _object(text).get("jobs")
    if not isinstance(jobs, list):
        raise Unreadable("its answer has no jobs")
    return [_read_job(job) for job in jobs]


def jobs_in_squeue(text: str) -> list[JobAnswer]:
    """Read squeue's lines in the format SQUEUE_FORMAT."""
    found = []
    for line in text.splitlines():
        number, bar, rest = line.strip().partition("|")
        written, bar, hosts = rest.partition("|")
        if bar and number.isdigit():
            alias = "" if written == number else written
            found.append(JobAnswer(number=number, alias=alias, hosts=_expand_hosts(hosts)))
    return found


def job_in_pyslurm(text: str) -> JobAnswer:
    """Read what pyslurm_probe prints."""
    answer = _object(text)
    number = answer.get("number")
    if not isinstance(number, int):
        raise Unreadable("its answer has no number of a job")
    return JobAnswer(number=str(number), hosts=_expand(answer, "hosts"))


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("its answer is not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("its answer is not a JSON object")
    return found


def _read_job(job: Any) -> JobAnswer:
    if not isinstance(job, Mapping):
        raise Unreadable("its answer has a job that is no object")
    number = _number(job.get("job_id"))
    if number is None:
        raise Unreadable("its answer has a job without a number")
    return JobAnswer(number=str(number), alias=_alias(job), hosts=_expand(job, "nodes"))


def _alias(job: Mapping[str, Any]) -> str:
    if array := _number(job.get("array_job_id")):
        task, waiting = _number(job.get("array_task_id")), job.get("array_task_string")
        if task is not None:
            return element(array, task)
        return f"{array}_[{waiting}]" if waiting else ""
    if (first := _number(job.get("het_job_id"))) and isinstance(
        offset := _number(job.get("het_job_offset")), int
    ):
        return component(first, offset)
    return ""


def _number(value: Any) -> int | None:
    """Return a number, also from 25.11's {"set": …, "infinite": …, "number": …}."""
    if isinstance(value, Mapping):
        return _number(value.get("number")) if value.get("set") else None
    return value if isinstance(value, int) else None


def _expand(answer: Mapping[str, Any], key: str) -> tuple[str, ...]:
    hosts = answer.get(key, ...)
    if hosts is None:
        return ()
    if not isinstance(hosts, str):
        raise Unreadable(f"its answer has no text {key!r}")
    return _expand_hosts(hosts)


def _expand_hosts(hosts: str) -> tuple[str, ...]:
    try:
        return expand_hosts(hosts)
    except ValueError as error:
        raise Unreadable(f"its list of hosts cannot be read: {error}") from None
