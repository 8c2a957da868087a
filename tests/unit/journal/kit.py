"""Values for the journal's tests."""

from __future__ import annotations

from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet, NodeSet


def placed(cpus: str, nodes: str) -> Placement:
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


def event(job: str = "7", point: str = "prolog") -> Event:
    return Event(scheduler="slurm", point=point, job=job, user=3, host="n1", data={"a": [1]})
