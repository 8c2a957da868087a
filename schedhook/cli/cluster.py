"""Read what `schedhook show --hosts` shows: the jobs of several hosts in one list."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedhook.cli.footprints import Target
from schedhook.cli.hosts import Answer, ask_hosts
from schedhook.jobs.footprint import Footprint
from schedhook.jobs.order import Order
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet

Json = Mapping[str, Any]

_SECONDS = 300.0
INSTEAD = "run `schedhook show` on each host"
"""What can be done without ClusterShell."""
_ANSWER: Json = {"jobs": [], "jobs_left_out": 0, "problems": [], "nodes": {}}
"""What an answer has at least, and of which type it is."""
_JOB = Footprint(
    placement=Placement(cpus=CpuSet(), nodes=NodeSet()),
    processes=(),
    residency={},
    kinds={},
    off_node={},
).to_dict()
"""The same of one of its jobs; None is any type."""


@dataclass(slots=True, kw_only=True)
class ClusterFootprints:
    """The answers of those hosts that have answered so far."""

    hosts: Sequence[str]
    order: Order
    answers: dict[str, Json] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Take over what a host has answered, or why it has not."""
        if answer.value is None:
            self.failures[answer.host] = answer.failure
        elif not _is_answer(answer.value):
            self.failures[answer.host] = "its answer has no jobs; is schedhook another version?"
        else:
            self.answers[answer.host] = answer.value

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `show --hosts --json` prints, of all jobs the first ones."""
        answers = {host: self.answers[host] for host in self.hosts if host in self.answers}
        jobs = [{"host": host, **job} for host, its in answers.items() for job in its["jobs"]]
        listed = self.order.of(jobs)
        left_out = sum(its["jobs_left_out"] for its in answers.values())
        return {
            "hosts": [self._describe(host) for host in self.hosts],
            "jobs": listed,
            "jobs_left_out": left_out + len(jobs) - len(listed),
            "problems": [
                f"{host}: {problem}" for host, its in answers.items() for problem in its["problems"]
            ],
        }

    def _describe(self, host: str) -> dict[str, Any]:
        return {
            "host": host,
            "failure": self.failures.get(host),
            "nodes": self.answers.get(host, {}).get("nodes"),
        }


def read_cluster(
    found: ClusterFootprints,
    target: Target,
    config_path: Path | None,
    seen: Callable[[str], None],
) -> None:
    """Run `schedhook show` on each host, and add what they answer to `found`.

    `seen` is called with the name of each host when its answer has been added. Raise SchedhookError
    if ClusterShell is not installed.
    """
    words = [sys.executable, "-P", "-m", "schedhook.cli.main", "show", "--json"]
    # The first jobs of all are among the first of each host.
    words += ["--sort", found.order.key.value]
    words += ["--top", str(found.order.most)] if found.order.most is not None else []
    words += ["--scheduler", target.scheduler] if target.scheduler is not None else []
    words += ["--user", str(target.user)] if target.user is not None else []
    words += ["--config", str(config_path.absolute())] if config_path is not None else []

    def add(answer: Answer) -> None:
        found.add(answer)
        seen(answer.host)

    ask_hosts(dict.fromkeys(found.hosts, words), add, _SECONDS, INSTEAD)


def describe_hosts(shown: Json) -> str:
    """Return how many hosts have answered, such as `498 of 500 hosts`; the host if it is one."""
    hosts = shown["hosts"]
    answered = [each["host"] for each in hosts if each["failure"] is None]
    if len(hosts) == 1:
        return str(hosts[0]["host"])
    return f"{len(answered)} of {len(hosts)} hosts"


def _is_answer(value: Any) -> bool:
    """Return whether `show` of this version could have printed that."""
    return _is_like(value, _ANSWER) and all(_is_like(job, _JOB) for job in value["jobs"])


def _is_like(value: Any, sample: Json) -> bool:
    return isinstance(value, dict) and all(
        key in value and (its is None or isinstance(value[key], type(its)))
        for key, its in sample.items()
    )
