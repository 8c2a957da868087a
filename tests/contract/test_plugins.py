"""The plug-ins that ship pass the contracts for authors of plug-ins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from schedhook import MapperPlugin, SchedulerPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.roles.guidance import Guidance
from schedhook.roles.profile import Profile
from schedhook.roles.scheduler import EventKind
from schedhook.testing import (
    FakeJob,
    HookCall,
    MapperContract,
    PageStrategyContract,
    SchedulerContract,
    StrategyContract,
    write_cgroup,
    write_file,
)
from schedhook.values.config import Config, PluginsSection
from schedhook.values.sets import NodeSet
from schedhook_plugins import mappers
from schedhook_plugins.schedulers.pbs import scheduler as pbs
from schedhook_plugins.schedulers.slurm import scheduler as slurm
from schedhook_plugins.strategies import hot_first, migrate_process, move_pages, profile_guided

PAGE = 4096


class TestMovePages(StrategyContract):
    plugin = move_pages
    name = "move-pages"


class TestHotFirst(StrategyContract):
    plugin = hot_first
    name = "hot-first"


class TestMigrateProcess(StrategyContract):
    plugin = migrate_process
    name = "migrate-process"


class TestProfileGuided(PageStrategyContract):
    plugin = profile_guided
    name = "profile-guided"

    def request(self) -> Mapping[str, Any]:
        """The first ten pages are used from node 2."""
        profile = Profile()
        for index in range(10):
            profile.add(self.PID, self.START + index * PAGE, node=2, count=5)
        accesses = {self.PID: profile.accesses([self.PID])}
        return {"guidance": Guidance(accesses=accesses, nodes=NodeSet({0, 1, 2}))}

    def expected_pages(self) -> Mapping[int, int]:
        return {0: 22, 1: 32, 2: 10}


def test_every_mapper_and_scheduler_that_ships_is_tested_here() -> None:
    shipped = load_plugins(Config(plugins=PluginsSection(third_party=False)))
    assert {each.name for each in MapperContract.__subclasses__()} == set(
        shipped.names(MapperPlugin)
    )
    assert {each.name for each in SchedulerContract.__subclasses__()} == set(
        shipped.names(SchedulerPlugin)
    )


class TestRelative(MapperContract):
    plugin = mappers
    name = "relative"


class TestNearest(MapperContract):
    plugin = mappers
    name = "nearest"


class TestSlurm(SchedulerContract):
    plugin = slurm
    name = "slurm"
    other_names: ClassVar[Mapping[str, str]] = {"40_2": "42", "40_[2]": "42", "40_[1-3:1%2]": "42"}

    def write_job(self, root: Path, job: FakeJob) -> None:
        cgroup = f"system.slice/slurmstepd.scope/job_{job.id}/step_0/user/task_0"
        write_cgroup(root, cgroup, pids=job.pids, cpus=job.cpus)
        job.write_processes(root, cgroup=f"/{cgroup}")
        element = "SLURM_ARRAY_JOB_ID=40\0SLURM_ARRAY_TASK_ID=2\0" if job.id == "42" else ""
        for pid in job.pids:
            write_file(root, f"proc/{pid}/environ", f"SLURM_JOB_ID={job.id}\0{element}")

    def hook_calls(self, job: str) -> Sequence[HookCall]:
        environ = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": "2001"}
        kinds = {
            "prolog": EventKind.JOB_STARTED,
            "task-prolog": EventKind.STEP_STARTED,
            "job-migrate": EventKind.RELOCATED,
            "epilog": EventKind.JOB_ENDED,
        }
        return [HookCall(point=point, kind=kind, environ=environ) for point, kind in kinds.items()]


class TestPbs(SchedulerContract):
    plugin = pbs
    name = "pbs"
    job_ids = ("41.server", "42[7].server")
    other_names: ClassVar[Mapping[str, str]] = {"41": "41.server", "42[7]": "42[7].server"}

    def write_job(self, root: Path, job: FakeJob) -> None:
        cgroup = f"pbs_jobs.service/jobid/{job.id}"
        sets = {"cpus": job.cpus, "nodes": job.nodes}
        effective = {f"effective_{name}": value for name, value in sets.items()}
        write_cgroup(root, cgroup, pids=job.pids, **sets, **effective)
        job.write_processes(root, cgroup=f"/{cgroup}")

    def hook_calls(self, job: str) -> Sequence[HookCall]:
        data = json.dumps({"job": {"id": job, "euser": "root"}, "host": "n1", "jobs": []}).encode()
        kinds = {
            "begin": EventKind.JOB_STARTED,
            "attach": EventKind.STEP_STARTED,
            "resize": EventKind.RELOCATED,
            "postsuspend": EventKind.SUSPENDED,
            "preresume": EventKind.RESUMING,
            "end": EventKind.JOB_ENDED,
        }
        return [HookCall(point=point, kind=kind, data=data) for point, kind in kinds.items()]
