"""What people call Slurm's jobs: `36_2` an array's element, `50+1` a heterogeneous job's component.

Each of these has a number of its own besides, by which Slurm's cgroups and hooks call it: 36_2 may
be job 38. The number 36 is that of the array's *last* element, 50 that of the first component, so
for people neither names one job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schedhook.roles.scheduler import JobDescription
from schedhook.values.errors import UsageError
from schedhook.values.text import join_some

_NUMBER = "[1-9][0-9]{0,9}"
_SPELLED = re.compile(
    rf"(?P<base>{_NUMBER})"
    r"(?:_(?P<element>[0-9]{1,10})"
    r"|_\[(?P<elements>[0-9]{1,10}(?:[,:-][0-9]{1,10})*)(?:%[0-9]+)?\]"
    r"|\+(?P<component>[0-9]{1,5}))?"
)
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([1-9][0-9]*))?)?")
_LONGEST_NAME = 128
MOST_COMPONENTS = 128
"""A heterogeneous job has no more."""

VARIABLES = frozenset(
    {
        "SLURM_JOB_ID",
        "SLURM_JOB_NAME",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_HET_JOB_ID",
        "SLURM_HET_JOB_OFFSET",
        *(f"SLURM_JOB_ID_HET_GROUP_{component}" for component in range(MOST_COMPONENTS)),
    }
)
"""What `describe` uses of a task's environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A job as the user wrote it: a number, an element or several, or a component."""

    base: int
    sign: str = ""
    """`_` before elements, `+` before a component, empty after a plain number."""
    members: tuple[range, ...] = ()

    def means(self, alias: str) -> bool:
        """Return whether it names the job with this alias; a plain number names no such job."""
        other = parse(alias)
        return (
            other is not None
            and (other.base, other.sign) == (self.base, self.sign)
            and any(_overlap(a, b) for a in self.members for b in other.members)
        )

    def is_base_of(self, alias: str) -> bool:
        """Return whether it is the plain number of the whole of which that job is a member."""
        other = parse(alias)
        return not self.sign and other is not None and bool(other.sign) and other.base == self.base


def _overlap(one: range, other: range) -> bool:
    """Return whether they overlap, if at least one of them has a single number."""
    return bool(one and other) and (one[0] in other or other[0] in one)


def parse(text: str) -> Spelling | None:
    """Return what the text says, None if Slurm's users write no job so.

    `36_[2]`, `36_[1-5:2,7]` and `36_[1-5%2]` name elements as squeue and sbatch do.
    """
    found = _SPELLED.fullmatch(text)
    if found is None:
        return None
    base = int(found["base"])
    if found["component"]:
        return Spelling(base=base, sign="+", members=_ranges(found["component"]))
    elements = found["element"] or found["elements"]
    if elements is None:
        return Spelling(base=base)
    members = _ranges(elements)
    return Spelling(base=base, sign="_", members=members) if members else None


def _ranges(text: str) -> tuple[range, ...]:
    """Return the ranges of a list such as `1-5:2,7`, none if it is malformed."""
    found = []
    for part in text.split(","):
        each = _RANGE.fullmatch(part)
        if each is None:
            return ()
        found.append(range(int(each[1]), int(each[2] or each[1]) + 1, int(each[3] or 1)))
    return tuple(found)


def element(base: int, number: int) -> str:
    """Return how people write an element of an array."""
    return f"{base}_{number}"


def component(base: int, number: int) -> str:
    """Return how people write a component of a heterogeneous job."""
    return f"{base}+{number}"


def resolve(text: str, aliases: Mapping[str, str]) -> str:
    """Return the job that people call `text`, `text` itself if it is none of these.

    `aliases` has each job's alias by its number. Raise UsageError, which lists them, if `text`
    names several jobs, and for the number of an array or of a heterogeneous job.
    """
    spelling = parse(text)
    if spelling is None:
        return text
    members = {job: alias for job, alias in aliases.items() if spelling.is_base_of(alias)}
    if members:
        kind = "an array" if "_" in next(iter(members.values())) else "a heterogeneous job"
        raise UsageError(f"{text} is {kind}; name one of its jobs: {_listed(members)}")
    found = {job: alias for job, alias in aliases.items() if spelling.means(alias)}
    if len(found) > 1:
        raise UsageError(f"{text} names several jobs; name one: {_listed(found)}")
    return next(iter(found), text)


def _listed(jobs: Mapping[str, str]) -> str:
    """Return jobs for a message, such as `36_1 (job 37), 36_2 (job 38)`."""
    return join_some([f"{jobs[job]} (job {job})" for job in sorted(jobs, key=int)])


def describe(variables: Mapping[str, str], job: str) -> JobDescription | None:
    """Return what the environment of one of its tasks says of the job, None if it is of another.

    Tasks of a heterogeneous job have the first component's number as SLURM_JOB_ID (22.05), and the
    numbers of all components.
    """
    alias = _alias_in(variables) if variables.get("SLURM_JOB_ID") == job else ""
    alias = alias or _component_in(variables, job)
    if not alias and variables.get("SLURM_JOB_ID") != job:
        return None
    return JobDescription(alias=alias, name=variables.get("SLURM_JOB_NAME", "")[:_LONGEST_NAME])


def _alias_in(variables: Mapping[str, str]) -> str:
    for base, member, write in (
        ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", element),
        ("SLURM_HET_JOB_ID", "SLURM_HET_JOB_OFFSET", component),
    ):
        if _is_number(variables.get(base)) and _is_number(variables.get(member)):
            return write(int(variables[base]), int(variables[member]))
    return ""


def _component_in(variables: Mapping[str, str], job: str) -> str:
    """Return the alias from the numbers of all components, which srun and sbatch set."""
    prefix = "SLURM_JOB_ID_HET_GROUP_"
    numbers = {
        name.removeprefix(prefix): number
        for name, number in variables.items()
        if name.startswith(prefix)
    }
    mine = [int(offset) for offset, number in numbers.items() if number == job]
    first = numbers.get("0")
    return component(int(first), mine[0]) if mine and first and _is_number(first) else ""


def _is_number(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"[0-9]{1,10}", text) is not None
