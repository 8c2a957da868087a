"""What `schedhook doctor` reports about Slurm on this host.

It checks Slurm's configuration, the hooks, and the method by which job-migrate can ask Slurm where
a job runs. It reads files and asks Slurm's controller nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.values.ownership import explain_untrusted
from schedhook_plugins.schedulers.slurm import queries

_USUAL = ("etc/slurm/slurm.conf", "run/slurm/conf/slurm.conf")
_CGROUPS = "proctrack/cgroup"
_HOOKS = {
    "Prolog": "the agent notices jobs only by watching, some moments after they start",
    "Epilog": "the agent notices that a job has ended only by watching, some moments later",
    "TaskProlog": "the agent reapplies an override only some moments after a step has started",
}
_INSTALL = "install the hooks as contrib/slurm/README.md tells"
_DEEPEST = 5

Settings = dict[str, list[str]]
"""The values of each parameter in the order of the file, by the name in lower case."""


def examine(root: Path) -> Iterable[Finding]:
    """Report on this host's set-up; one line if it is not part of a Slurm cluster."""
    path = find_configuration(root)
    if path is None:
        yield ok("slurm", "no slurm.conf on this host")
        return
    settings = read_settings(path)
    yield ok("slurm", f"configured by {path}")
    yield from _confinement(settings, path)
    for parameter, without in _HOOKS.items():
        yield from _hook(parameter, settings.get(parameter.lower(), []), without, root)
    if root == Path("/"):
        yield _query_method()


def find_configuration(root: Path) -> Path | None:
    """Return the slurm.conf that Slurm's commands on this host use, None if there is none."""
    named = os.environ.get("SLURM_CONF") if root == Path("/") else None
    candidates = [Path(named)] if named else [root / each for each in _USUAL]
    return next((path for path in candidates if path.is_file()), None)


def read_settings(path: Path, depth: int = 0) -> Settings:
    """Read the parameters of a file like slurm.conf(5), and included files in their place.

    Raise OSError if the file cannot be read.
    """
    settings: Settings = {}
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", "")
    for line in text.splitlines():
        line = line.partition("#")[0].strip()  # noqa: PLW2901
        if included := re.fullmatch(r"(?i:include)\s+(\S+)", line):
            below = path.parent / included[1]
            if depth < _DEEPEST and below.is_file():
                for name, values in read_settings(below, depth + 1).items():
                    settings.setdefault(name, []).extend(values)
        elif setting := re.fullmatch(r"(\w+)\s*=\s*(.*)", line):
            settings.setdefault(setting[1].lower(), []).append(setting[2].strip())
    return settings


def _confinement(settings: Settings, path: Path) -> Iterable[Finding]:
    tracking = _last(settings, "proctracktype") or _CGROUPS  # the default if there are cgroups
    if tracking == _CGROUPS:
        yield ok("slurm", f"ProctrackType={tracking}: jobs can be found by their cgroups")
    else:
        what = (
            f"ProctrackType={tracking}: jobs may have no cgroups, and cannot be found without them"
        )
        yield problem("slurm", what, f"set ProctrackType={_CGROUPS} in slurm.conf")
    tasks = _last(settings, "taskplugin")
    constrain = ""
    cgroup = path.with_name("cgroup.conf")
    if cgroup.is_file():
        constrain = _last(read_settings(cgroup), "constraincores")
    if "task/cgroup" not in tasks.split(","):
        lacks = f"TaskPlugin={tasks or '(default)'}, without task/cgroup"
    elif constrain.lower() != "yes":
        lacks = f"ConstrainCores={constrain or '(default: no)'} in {cgroup}"
    else:
        yield ok("slurm", f"TaskPlugin={tasks}, ConstrainCores=yes: jobs have cpusets")
        return
    what = f"{lacks}: jobs have no cpusets, only bindings, and can leave their processors"
    remedy = (
        "set TaskPlugin=task/cgroup,task/affinity in slurm.conf and ConstrainCores=yes in"
        " cgroup.conf"
    )
    yield note("slurm", what, remedy)


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
        yield note(subject, f"{named}: schedhook's hook is not called; {without}", _INSTALL)
        return
    for path in ours:
        if not os.access(path, os.X_OK):
            yield problem(subject, f"{path} is not executable", f"run chmod 755 {path}")
        elif parameter != "TaskProlog" and (others := explain_untrusted(path)):
            remedy = f"run chown root {path}; chmod 755 {path}"
            yield problem(subject, f"root runs {others}", remedy)
        else:
            yield ok(subject, str(path))


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


def _last(settings: Settings, name: str) -> str:
    """Return the last value of a parameter, which is the one that Slurm uses."""
    return settings.get(name, [""])[-1]


def _query_method() -> Finding:
    found = queries.probe()
    for name, (usable, what) in found.items():
        if usable:
            return ok("slurm queries", f"{name} can be used: {what}")
    lacks = "; ".join(f"{name}: {what}" for name, (_, what) in found.items())
    what = f"Slurm cannot be asked where a job runs ({lacks}): job-migrate acts on this host only"
    return note("slurm queries", what, "install Slurm's client commands on this host")
