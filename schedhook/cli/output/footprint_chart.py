"""Charts of `schedhook show`: where memory is, compared with where its processors are."""

from __future__ import annotations

from collections.abc import Sequence

from schedhook.cli.output.charts import (
    Bar,
    Chart,
    Group,
    Json,
    Tone,
    make_chart,
    make_group,
    node_name,
    title_of,
)
from schedhook.cli.output.text import by_number, count, off_node, size, written
from schedhook.host.users import user_name
from schedhook.values.sets import NodeSet
from schedhook.values.text import printable


def chart_footprint(shown: Json) -> Chart:
    """Return the chart of one job or of some processes, from what `show --json` has."""
    processes = shown["processes"]
    groups = [_whole_group("all processes" if len(processes) > 1 else "", shown)]
    if len(processes) > 1:
        groups += [_process_group(each, shown) for each in processes]
    return make_chart(
        _target_title(shown),
        facts=(
            f"processors {shown['placement']['cpus'] or '-'},"
            f" nodes {shown['placement']['nodes'] or '-'}",
            f"{size(shown['bytes'])} in {count(len(processes), 'process')},"
            f" {off_node(shown['bytes_off_node'], shown['bytes'])}",
        ),
        groups=groups,
    )


def chart_jobs(shown: Json) -> Chart:
    """Return the chart of every job on the host: the nodes first, then each job."""
    jobs = shown["jobs"]
    whole = sum(job["bytes"] for job in jobs)
    off = sum(job["bytes_off_node"] for job in jobs)
    return make_chart(
        f"{jobs_title(shown)} on this host",
        facts=(f"{size(whole)} of memory, {off_node(off, whole)}",),
        groups=(_host_group(shown), *(_job_group(job, shown) for job in jobs)),
    )


def jobs_title(shown: Json) -> str:
    """Return how many jobs are listed, such as `20 of 37 jobs`."""
    listed, left_out = len(shown["jobs"]), shown["jobs_left_out"]
    return f"{listed} of {count(listed + left_out, 'job')}" if left_out else count(listed, "job")


def parts_of_job(job: Json) -> tuple[tuple[Tone, int], ...]:
    """Return the bytes of a job by tone, of all nodes together: its bar in the list of jobs."""
    parts = dict.fromkeys((Tone.HOME, Tone.OFF, Tone.SHARED), 0)
    for node in by_number(job["residency"]):
        for tone, part in parts_on(job, node).items():
            parts[tone] += part
    return tuple(parts.items())


def group_of_jobs(jobs: Sequence[Json]) -> Group:
    """Return a bar for each job, on one scale."""
    bars = [
        Bar(
            name=printable(f"{job['scheduler']} {written(job)}"),
            parts=parts_of_job(job),
            note=_note_on_job(job),
        )
        for job in jobs
    ]
    return make_group("memory of each job", bars)


def _note_on_job(job: Json) -> str:
    known = (printable(job["name"] or ""), user_name(job["user"]))
    return ", ".join(filter(None, (*known, off_node(job["bytes_off_node"], job["bytes"]))))


def _target_title(shown: Json) -> str:
    if shown["job"] is not None:
        return job_title(shown)
    if shown["cgroup"] is not None:
        return printable(f"cgroup {shown['cgroup']}")
    processes = shown["processes"]
    return title_of(processes[0]) if len(processes) == 1 else count(len(processes), "process")


def job_title(job: Json) -> str:
    """Return a job's title, such as `slurm job 36_2 (38) "sweep" of alice, suspended`."""
    name, user = job["name"], user_name(job["user"])
    parts = [f"{job['scheduler']} job {written(job)}", name and f'"{name}"', user and f"of {user}"]
    title = " ".join(filter(None, parts))
    return printable(f"{title}, suspended" if job["suspended"] else title)


def _whole_group(title: str, shown: Json) -> Group:
    """Return the bars of the whole target, with the nodes of its processors even if empty."""
    home = home_nodes(shown["placement"])
    nodes = by_number(shown["residency"]).keys() | home
    others = len(shown["nodes"]) - len(nodes)
    note = f"nothing on {count(others, 'other node')}" if others > 0 else ""
    return make_group(title, [_bar(node, shown, home, shown) for node in sorted(nodes)], note=note)


def _job_group(job: Json, shown: Json) -> Group:
    home = home_nodes(job["placement"])
    bars = [_bar(node, job, home, shown) for node in by_number(job["residency"])]
    return make_group(job_title(job), bars)


def _process_group(process: Json, shown: Json) -> Group:
    home = home_nodes(process)
    bars = [_bar(node, process, home, shown) for node in by_number(process["residency"])]
    return make_group(title_of(process), bars)


def _bar(node: int, its: Json, home: set[int], shown: Json) -> Bar:
    """Return the bar of what `its` footprint has on one node of the host."""
    name = str(node)
    kinds = [f"{kind} {size(sizes[name])}" for kind, sizes in its["kinds"].items() if name in sizes]
    return Bar(
        name=node_name(node),
        is_home=node in home,
        parts=tuple(parts_on(its, node).items()),
        free=shown["nodes"].get(name, {}).get("free"),
        note=", ".join(kinds),
    )


def _host_group(shown: Json) -> Group:
    """Return for each node what the jobs use of it, and what others use."""
    bars = []
    for name, node in shown["nodes"].items():
        parts = dict.fromkeys((Tone.HOME, Tone.OFF, Tone.SHARED), 0)
        for job in shown["jobs"]:
            for tone, part in parts_on(job, int(name)).items():
                parts[tone] += part
        jobs = sum(parts.values())
        parts[Tone.OTHER] = max(node["total"] - node["free"] - jobs, 0)
        bars.append(
            Bar(
                name=node_name(int(name)),
                parts=tuple(parts.items()),
                free=node["free"],
                note=f"{size(jobs)} of jobs" if jobs else "",
            )
        )
    largest = max((node["total"] for node in shown["nodes"].values()), default=0)
    left_out = shown["jobs_left_out"]
    note = f"{count(left_out, 'job')} not listed: their memory is other memory here"
    title = "memory in use, of what each node has"
    return make_group(title, bars, largest, note if left_out else "")


def home_nodes(placement: Json) -> set[int]:
    """Return the nodes of the processors."""
    return set(NodeSet.parse(placement["nodes"]))


def parts_on(its: Json, node: int) -> dict[Tone, int]:
    """Return the bytes of a footprint on one node by tone."""
    there = its["residency"].get(str(node), 0)
    off = min(its["off_node"].get(str(node), 0), there)
    if node in NodeSet.parse(its["local"]):
        return {Tone.HOME: there - off, Tone.OFF: off}
    return {Tone.OFF: off, Tone.SHARED: there - off}
