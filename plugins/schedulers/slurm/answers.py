"""Slurm's answers to where a job runs: the list of hosts, from JSON, text and pyslurm.

Each function returns None if the answer names no such job, and raises Unreadable if it is not an
answer of a known shape. A job that has not started has no hosts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schedhook.values.errors import SchedhookError
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts

Hosts = tuple[str, ...]

SQUEUE_FORMAT = "%A|%N"
"""squeue --format: the job's number and its list of hosts."""


class Unreadable(SchedhookError):
    """An answer is not of a shape that this version of schedhook knows."""


def hosts_in_json(text: str, job: str) -> Hosts | None:
    """Read squeue's or scontrol's JSON, in the shapes of 22.05 and of 25.11.

    squeue 22.05 lists all jobs, whatever it was asked for.
    """
    jobs = _object(text).get("jobs")
    if not isinstance(jobs, list):
        raise Unreadable("its answer has no jobs")
    for each in jobs:
        if not isinstance(each, Mapping):
            raise Unreadable("its answer has a job that is no object")
        if _number(each.get("job_id")) == int(job):
            return _expand(each, "nodes")
    return None


def hosts_in_squeue(text: str, job: str) -> Hosts | None:
    """Read squeue's lines in the format SQUEUE_FORMAT."""
    for line in text.splitlines():
        number, bar, hosts = line.strip().partition("|")
        if bar and number == job:
            return _expand_hosts(hosts)
    return None


def hosts_in_pyslurm(text: str) -> Hosts:
    """Read what pyslurm_probe prints."""
    return _expand(_object(text), "hosts")


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("its answer is not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("its answer is not a JSON object")
    return found


def _number(value: Any) -> int | None:
    """Return a number, also from 25.11's {"set": …, "infinite": …, "number": …}."""
    if isinstance(value, Mapping):
        return _number(value.get("number")) if value.get("set") else None
    return value if isinstance(value, int) else None


def _expand(answer: Mapping[str, Any], key: str) -> Hosts:
    hosts = answer.get(key, ...)
    if hosts is None:
        return ()
    if not isinstance(hosts, str):
        raise Unreadable(f"its answer has no text {key!r}")
    return _expand_hosts(hosts)


def _expand_hosts(hosts: str) -> Hosts:
    try:
        return expand_hosts(hosts)
    except ValueError as error:
        raise Unreadable(f"its list of hosts cannot be read: {error}") from None
