"""What `schedhook doctor` reports about Slurm on this host.

It checks Slurm's configuration, the hooks, and the method by which job-migrate can ask Slurm where
a job runs. On a live host it also asks whether the controller answers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from schedhook.host.cgroups import Cgroup, configured_cpus, hierarchies
from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.values.ownership import explain_untrusted
from schedhook.values.text import join_some
from schedhook_plugins.schedulers.programs import explain_unusable
from schedhook_plugins.schedulers.slurm import queries
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.configuration import (
    Settings,
    find_configuration,
    is_yes,
    last,
    plugin_names,
    read_settings,
)
from schedhook_plugins.schedulers.slurm.cpu_tree import union
from schedhook_plugins.schedulers.slurm.scopes import JobCgroups

_CGROUPS = "proctrack/cgroup"
_PROGRAM = re.compile(r"(?<![^\s'\"])(/(?!dev/)[^\s'\";|&<>$]+)")
"""An absolute path in a shell script, as a word of its own."""
_TRIAL = ("-I", "-S", "-c", "pass")
_HOOKS = {
    "Prolog": "the agent notices jobs only by watching, some moments after they start",
    "Epilog": "the agent notices that a job has ended only by watching, some moments later",
    "TaskProlog": "the agent reapplies an override only some moments after a step has started",
}
_INSTALL = "schedhook setup slurm"


def examine(root: Path) -> Iterable[Finding]:
    """Report on this host's set-up; one line if it is not part of a Slurm cluster."""
    path = find_configuration(root)
    if path is None:
        yield ok("slurm", "no slurm.conf on this host")
        return
    settings = read_settings(path)
    yield ok("slurm", f"configured by {path}")
    yield from _confinement(settings, path)
    yield from _version(path.with_name("cgroup.conf"), root)
    yield from _numbers(root)
    yield from _sharing(root)
    for parameter, without in _HOOKS.items():
        yield from _hook(parameter, settings.get(parameter.lower(), []), without, root)
    if root == Path("/"):
        yield from _controller()


def _confinement(settings: Settings, path: Path) -> Iterable[Finding]:
    tracking = last(settings, "ProctrackType") or _CGROUPS  # the default if there are cgroups
    if plugin_names(tracking, "proctrack") == ["cgroup"]:
        yield ok("slurm", f"ProctrackType={tracking}: jobs can be found by their cgroups")
    else:
        what = (
            f"ProctrackType={tracking}: jobs may have no cgroups, and cannot be found without them"
        )
        yield problem("slurm", what, f"set ProctrackType={_CGROUPS} in slurm.conf")
    tasks = last(settings, "TaskPlugin")
    cgroup = path.with_name("cgroup.conf")
    constrain = last(read_settings(cgroup), "ConstrainCores") if cgroup.is_file() else ""
    if "cgroup" not in plugin_names(tasks, "task"):
        lacks = f"TaskPlugin={tasks or '(default)'}, without task/cgroup"
    elif not is_yes(constrain):
        lacks = f"ConstrainCores={constrain or '(default: no)'} in {cgroup}"
    else:
        yield ok("slurm", f"TaskPlugin={tasks}, ConstrainCores={constrain}: jobs have cpusets")
        return
    what = f"{lacks}: jobs have no cpusets, only bindings, and can leave their processors"
    remedy = (
        "set TaskPlugin=task/cgroup,task/affinity in slurm.conf and ConstrainCores=yes in"
        " cgroup.conf"
    )
    yield note("slurm", what, remedy)


def _version(configuration: Path, root: Path) -> Iterable[Finding]:
    """Compare the version of cgroups that Slurm is told to use with those that are mounted."""
    settings = read_settings(configuration) if configuration.is_file() else {}
    wanted = last(settings, "CgroupPlugin").lower().removeprefix("cgroup/") or "autodetect"
    if wanted == "autodetect":
        return
    have = {f"v{each.version}" for each in hierarchies(root) if _has_cpusets(each)}
    if wanted not in have:
        found = " and ".join(sorted(have)) or "none"
        what = f"CgroupPlugin={wanted}, and the cpusets mounted here are of version: {found}"
        remedy = f"set CgroupPlugin=autodetect in {configuration}, or boot with that version"
        yield problem("slurm", what, remedy)


def _has_cpusets(top: Cgroup) -> bool:
    if top.version == 1:
        return (top.path / "cpuset.cpus").exists()
    controllers = top.path / "cgroup.controllers"
    return controllers.is_file() and "cpuset" in controllers.read_text().split()


def _numbers(root: Path) -> Iterable[Finding]:
    """Report jobs that only a SLUID names, as Slurm 26.05 does, and whose number is unknown."""
    unknown = JobCgroups(root).unnumbered()
    if unknown:
        what = (
            f"{join_some(unknown)}: the number of the job is unknown, since no slurmstepd of it"
            " can be seen; it is not followed"
        )
        yield problem("slurm", what, "set CgroupJobIdPaths=yes in cgroup.conf (26.05.2 or later)")


def _sharing(root: Path) -> Iterable[Finding]:
    """Report jobs that have processors in common: Slurm gives a processor to one job only.

    It does not know of processors that job-migrate, or an administrator, has given a job.
    """
    here = HostJobs(root)
    cpus = {job: union(map(configured_cpus, here.cgroups(job))) for job in here.allocated()}
    shared = [
        f"{one} and {other} on {cpus[one] & cpus[other]}"
        for one, other in combinations(cpus, 2)
        if cpus[one] & cpus[other]
    ]
    if shared:
        what = f"jobs share processors: {join_some(shared)}"
        yield note("slurm jobs", what, "job-migrate one of them to free processors")


def _hook(parameter: str, values: list[str], without: str, root: Path) -> Iterable[Finding]:
    subject = f"slurm {parameter}"
    found = list(_files(values, root))
    missing = [path for path in found if not path.exists()]
    if missing:
        what = f"{missing[0]} does not exist; slurmd drains a host whose hooks fail"
        yield problem(subject, what, "install the file, or remove the line from slurm.conf")
    ours = [path for path in found if path.is_file() and _is_ours(path)]
    if not ours:
        named = ", ".join(values) or "none"
        remedy = f"run {_INSTALL}, and put the lines that it prints into slurm.conf"
        yield note(subject, f"{named}: schedhook's hook is not called; {without}", remedy)
        return
    for path in ours:
        if not os.access(path, os.X_OK):
            yield problem(subject, f"{path} is not executable", f"run chmod 755 {path}")
        elif parameter != "TaskProlog" and (others := explain_untrusted(path)):
            remedy = f"run chown root {path}; chmod 755 {path}"
            yield problem(subject, f"root runs {others}", remedy)
        elif why := _explain_broken(path, root):
            yield problem(subject, f"{path} reports nothing: {why}", f"run {_INSTALL} again")
        else:
            yield ok(subject, str(path))


def _explain_broken(hook: Path, root: Path) -> str | None:
    """Return why the programs that the hook names cannot be run; None if they can."""
    lines = hook.read_text(errors="replace").splitlines()
    code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for word in _PROGRAM.findall(code):
        path = root / word.lstrip("/")
        if path.suffix == ".py":
            why = None if os.access(path, os.R_OK) else f"{path} does not exist"
        else:
            is_python = root == Path("/") and path.name.startswith("python")
            why = explain_unusable(path, _TRIAL if is_python else ())
        if why:
            return why
    return None


def _files(values: Iterable[str], root: Path) -> Iterator[Path]:
    """Yield the files that the lines name; a pattern stands for the files that it matches."""
    for value in values:
        for name in value.split(","):
            plain = name.strip().lstrip("/")
            if any(sign in plain for sign in "*?["):
                yield from sorted(root.glob(plain))
            elif plain:
                yield root / plain


def _is_ours(path: Path) -> bool:
    try:
        return "schedhook" in path.read_text(errors="replace")
    except OSError:
        return False


def _controller() -> Iterable[Finding]:
    """Report by which method job-migrate asks Slurm where a job runs, and whether it answers."""
    found = queries.probe()
    usable = [name for name, (works, _) in found.items() if works]
    if not usable:
        lacks = "; ".join(f"{name}: {what}" for name, (_, what) in found.items())
        what = f"cannot be asked where a job runs ({lacks}): job-migrate acts on this host only"
        yield note("slurm queries", what, "install Slurm's client commands on this host")
        return
    if (failure := queries.ping()) is not None:
        what = f"the controller does not answer ({failure}): job-migrate acts on this host only"
        yield problem(
            "slurm queries", what, "check slurmctld and munged; scontrol ping must say UP"
        )
        return
    answering, failures = queries.find_answering(usable)
    if answering is None:
        what = f"Slurm gives no answer that can be read ({failures}): job-migrate acts on this host"
        yield problem("slurm queries", f"{what} only", "try squeue --jobs=1 as root")
        return
    what = f"{answering} can be used, the controller answers: {found[answering][1]}"
    yield ok("slurm queries", what + (f" (not {failures})" if failures else ""))
