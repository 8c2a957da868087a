"""Processors, bindings and memory of a real Slurm job move together, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from schedhook.roles.request import Request
from schedhook.values.model import Outcome, Placement, PlacementOverride, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.migrate import migrate
from schedhook_plugins.schedulers.slurm.reapply import reapply
from schedhook_plugins.schedulers.slurm.rebinding import rebind
from tests.slurm import jobs
from tests.slurm.cluster import Cluster, wait_until

Pipeline = Callable[[Request], Report]
NEW = CpuSet({2, 3})


def cpus_in(cluster: Cluster, job: int) -> dict[str, str]:
    """Return every cpuset of the job that was written, by its cgroup."""
    top = cluster.job_cgroup(job)
    found = {}
    for path in sorted(top.rglob("cpuset.cpus")):
        text = path.read_text().strip()
        if text:
            found[str(path.parent.relative_to(top.parent))] = text
    return found


def bindings(pids: tuple[int, ...]) -> list[set[frozenset[int]]]:
    """Return, for each process, the sets of processors that its threads may use."""
    threads = ([int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()] for pid in pids)
    return [{frozenset(os.sched_getaffinity(tid)) for tid in each} for each in threads]


def only(*cpus: int) -> list[set[frozenset[int]]]:
    """Return the bindings of processes with all threads on one processor each."""
    return [{frozenset({cpu})} for cpu in cpus]


def homes(here: HostJobs, job: int) -> dict[str, Placement]:
    return {task.name: task.placement for task in here.tasks(str(job))}


def test_a_job_moves_task_by_task_or_not_at_all(cluster: Cluster, pipeline: Pipeline) -> None:
    running = jobs.start(cluster, threads=2)
    job = str(running.job)
    before = cpus_in(cluster, running.job)
    assert set(before.values()) == {"0-1"}
    assert min(running.shares((0, 1))) >= 0.999
    here = HostJobs(host="n1")

    def fails(request: Request) -> Report:
        if request.dry_run or bindings(running.tasks) == only(0, 1):  # on the way back
            return pipeline(request)
        assert bindings(running.tasks) == only(2, 3)
        raise OSError("the pipeline broke")

    try:
        migrate(here, job, NEW, fails)
    except OSError as error:
        assert str(error) == "the pipeline broke"
    assert cpus_in(cluster, running.job) == before
    assert bindings(running.tasks) == only(0, 1)
    assert min(running.shares((0, 1))) >= 0.999

    move = migrate(here, job, NEW, pipeline)
    assert (move.failure, move.not_restored) == (None, ())
    assert [report.outcome for report in move.reports] == [Outcome.COMPLETE]
    assert cpus_in(cluster, running.job) == dict.fromkeys(before, "2-3")
    assert bindings(running.tasks) == only(2, 3)
    assert min(running.shares((2, 3))) >= 0.999
    assert move.new.nodes == NodeSet({2, 3})
    assert running.finish() == ["rank 0 right", "rank 1 right"]


def test_a_move_to_a_node_without_room_is_refused(cluster: Cluster, pipeline: Pipeline) -> None:
    """Another process fills node 2; the job keeps its place, and no process of it is killed."""
    running = jobs.start(cluster, mib=300)
    before = cpus_in(cluster, running.job)
    with jobs.full_node(cluster, 2):
        move = migrate(HostJobs(host="n1"), str(running.job), NEW, pipeline)
    assert "node 2 has no room" in (move.failure or "")
    assert cpus_in(cluster, running.job) == before
    assert bindings(running.tasks) == only(0, 1)
    assert min(running.shares((0, 1))) >= 0.999
    assert running.finish() == ["rank 0 right", "rank 1 right"]


def start_with_a_later_step(cluster: Cluster) -> tuple[int, tuple[Path, Path], Path]:
    """Start a job of two steps; return it, the files that end them, and that starts the second."""
    stop, second = jobs.new_stop(cluster), jobs.new_stop(cluster)
    go = cluster.work / f"{stop.name}.go"
    step = f"srun --overlap --cpu-bind=map_cpu:0,1 {jobs.program()} 50"
    script = f"{step} {stop} & until [ -e {go} ]; do sleep 0.2; done; {step} {second}; wait"
    return cluster.submit(script, "-n2", "-w", "n1"), (stop, second), go


def test_a_step_that_starts_during_a_move_is_not_lost(cluster: Cluster, pipeline: Pipeline) -> None:
    """Slurm binds its tasks to the processors that it gave the job, which must be there then."""
    job, stops, go = start_with_a_later_step(cluster)
    first = jobs.ready(cluster, job, stops[0], tasks=2)
    step = cluster.job_cgroup(job) / "step_1"

    def relocate(request: Request) -> Report:
        if not request.dry_run:
            go.touch()
            wait_until(step.exists, 60, "the second step", cluster.diagnosis)
        return pipeline(request)

    move = migrate(HostJobs(host="n1"), str(job), NEW, relocate)
    assert "step 1 of the job is starting" in (move.failure or "")
    assert sum(report.bytes_moved for report in move.reports) > 2 * (90 << 20), "there and back"
    running = jobs.Running(cluster=cluster, job=job, stop=stops[0], tasks=first)
    assert min(running.shares((0, 1))) >= 0.999
    second = jobs.ready(cluster, job, stops[1], tasks=2)
    assert bindings(first) == bindings(second) == only(0, 1)
    for stop in stops:
        stop.touch()
    cluster.wait_for_state(job, "COMPLETED")
    assert cluster.output(job).count("right") == 4


def test_reapplying_the_override_moves_old_and_new_steps(
    cluster: Cluster, pipeline: Pipeline
) -> None:
    """Slurm writes its own cpuset when a step starts, which moves the first step back too."""
    here = HostJobs(host="n1")
    job, (stop, second), go = start_with_a_later_step(cluster)
    first_tasks = jobs.ready(cluster, job, stop, tasks=2)
    was = Placement(cpus=CpuSet({0, 1}), nodes=NodeSet({0, 1}))
    move = migrate(here, str(job), NEW, pipeline)
    assert move.done
    known = homes(here, job)

    go.touch()
    second_tasks = jobs.ready(cluster, job, second, tasks=2)
    assert cpus_in(cluster, job)[f"job_{job}"] == "0-1"
    assert set(os.sched_getaffinity(first_tasks[0])) <= {0, 1}

    override = PlacementOverride(was=was, placement=move.new)
    reapply(here, str(job), override, pipeline, known)
    assert set(cpus_in(cluster, job).values()) == {"2-3"}
    assert bindings(first_tasks) == bindings(second_tasks) == only(2, 3)
    for tasks in (first_tasks, second_tasks):
        for pid, node in zip(tasks, (2, 3), strict=True):
            its = jobs.residency(pid)
            assert its[node] >= 0.999 * sum(its.values())
    for each in (stop, second):
        each.touch()
    cluster.wait_for_state(job, "COMPLETED")
    assert cluster.output(job).count("right") == 4


def test_bindings_that_a_changed_cpuset_dropped_are_restored(cluster: Cluster) -> None:
    running = jobs.start(cluster, mib=10, threads=1)
    here = HostJobs(host="n1")
    job, known = str(running.job), homes(here, running.job)
    assert not rebind(here, job, known)
    (cluster.job_cgroup(running.job) / "cpuset.cpus").write_text("2-3")
    wait_until(lambda: bindings(running.tasks) != only(0, 1), 10, "the kernel to follow")
    rebind(here, job, known)
    assert bindings(running.tasks) == only(2, 3)
    assert not rebind(here, job, known)
    assert running.finish() == ["rank 0 right", "rank 1 right"]
