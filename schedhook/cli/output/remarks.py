"""What `show` and `report` say below their figures: notes, and the command that helps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from schedhook.cli.output.charts import Json
from schedhook.cli.output.text import count
from schedhook.values.policy import PolicyCount
from schedhook.values.text import join_some, printable


def notes_of_jobs(shown: Json) -> list[str]:
    """Return the notes on a list of jobs."""
    notes = [f"note: {printable(problem)}" for problem in shown["problems"]]
    for job in shown["jobs"]:
        if policies := PolicyCount(**job["off_node_policies"]):
            where = f"{job['host']}: " if "host" in job else ""
            which = printable(f"{where}{job['scheduler']} {job['job']}")
            notes.append(f"note: {which}: the memory policy of {policies} names other nodes")
    return notes + reading_notes(shown["jobs"])


def reading_notes(footprints: Sequence[Json]) -> list[str]:
    """Return notes on what could not be read of these footprints."""
    notes = []
    if silent := [str(pid) for each in footprints for pid in each["not_answering"]]:
        who = join_some(silent)
        notes.append(f"note: left out, since it does not answer: process {who}; see doctor")
    if unreadable := sum(each["unreadable"] for each in footprints):
        notes.append(f"note: {count(unreadable, 'process')} not readable by this user; run as root")
    if not all(each["exact"] for each in footprints):
        notes.append(
            "note: pages shared since fork(2) count in each process, so sizes are upper bounds;"
            " run as root, with CAP_SYS_ADMIN"
        )
    return notes


def remedy(shown: Json, where: str = "") -> list[str]:
    """Return the command that brings the target's off-node memory home, if it has some.

    `where` says on which hosts, such as ` on n1, n7`.
    """
    if not shown["bytes_off_node"]:
        return []
    if shown["job"] is not None:
        target = f"--job {shlex.quote(shown['alias'] or shown['job'])}"
    elif shown["cgroup"] is not None:
        target = f"--cgroup {shlex.quote(shown['cgroup'])}"
    else:
        target = " ".join(f"--pid {each['pid']}" for each in shown["processes"])
    return [_command(target, where)]


def remedy_of_jobs(shown: Json) -> list[str]:
    """Return the command that brings the jobs' off-node memory home, if one has some."""
    off = [job for job in shown["jobs"] if job["bytes_off_node"]]
    hosts = dict.fromkeys(job["host"] for job in off if "host" in job)
    where = f" on {join_some(list(hosts))}" if hosts else ""
    if len(off) == 1:
        return remedy(off[0], where)
    return [_command("--all", where)] if off else []


def _command(target: str, where: str) -> str:
    return f"to bring it home{where}: schedhook relocate {printable(target)} --home"
