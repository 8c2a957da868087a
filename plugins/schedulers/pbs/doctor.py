"""Checks of `schedhook doctor` for OpenPBS on this host: the hooks that pbs_mom has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.values.text import describe_error
from schedhook_plugins.schedulers.programs import explain_unusable

_CONFIGURATION = "etc/pbs.conf"
_HOOK = "schedhook"
_CGROUPS_HOOK = "pbs_cgroups"
_ALARM = 30.0
"""What PBS omits from a hook's control file."""
_LIMIT = 1.8
_SHARE_OF_ALARM = 0.7
"""The last two as in contrib/pbs/schedhook.PY."""
_INSTALL = "contrib/pbs/install, on the PBS server"


def examine(root: Path) -> Iterable[Finding]:
    """Check PBS's configuration and hooks; one finding if this host is in no PBS cluster."""
    path = root / _CONFIGURATION
    if not path.is_file():
        yield ok("pbs", "no pbs.conf on this host")
        return
    settings = _settings(path)
    home = root / settings.get("PBS_HOME", "/var/spool/pbs").lstrip("/")
    version = home / "pbs_version"
    said = f", version {version.read_text().strip()}" if version.is_file() else ""
    yield ok("pbs", f"configured by {path}{said}")
    hooks = home / "mom_priv/hooks"
    if not os.access(hooks, os.R_OK | os.X_OK):
        what = f"cannot read {hooks}: it is unknown whether the hook is installed"
        yield note("pbs hook", what, "run as root, on an execution host")
        return
    yield from _our_hook(hooks, root)
    yield from _cgroups_hook(hooks)


def _our_hook(hooks: Path, root: Path) -> Iterable[Finding]:
    control = hooks / f"{_HOOK}.HK"
    if not control.is_file():
        what = "not installed: only the watcher, if it runs, notices resize, suspend and resume"
        yield note("pbs hook", what, _INSTALL)
        return
    its = _settings(control)
    if its.get("enabled", "true").lower() != "true":
        yield problem("pbs hook", "disabled", "qmgr -c 'set hook schedhook enabled = True'")
    order, cgroups = (
        int(_settings(each).get("order") or 1) if each.is_file() else 0
        for each in (control, hooks / f"{_CGROUPS_HOOK}.HK")
    )
    if order <= cgroups:
        what = f"order {order} is before the cgroups hook ({cgroups}): it sees jobs' old cpusets"
        yield problem("pbs hook", what, "qmgr -c 'set hook schedhook order = 500'")
    configuration = hooks / f"{_HOOK}.CF"
    yield from _program(configuration, root)
    yield from _limits(configuration, float(its.get("alarm") or _ALARM))


def _program(configuration: Path, root: Path) -> Iterable[Finding]:
    try:
        program = json.loads(configuration.read_text())["program"]
        words = [program] if isinstance(program, str) else list(map(str, program))
        path = root / words[0].lstrip("/")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        what = f"no program in {configuration}: {describe_error(error)}"
        yield problem("pbs hook", what, f"correct schedhook.CF and run {_INSTALL}")
        return
    trial = (*words[1:], "--version") if root == Path("/") else ()
    if why := explain_unusable(path, trial):
        what = f"its program cannot be run: {why}"
        yield problem("pbs hook", what, "install schedhook there, or correct schedhook.CF")
    else:
        yield ok("pbs hook", f"installed; runs {path}")


def _limits(configuration: Path, alarm: float) -> Iterable[Finding]:
    """Check the hook's time limits, which its alarm may cut short."""
    try:
        seconds = json.loads(configuration.read_text()).get("seconds", {})
        longest = max(map(float, {"default": _LIMIT, **seconds}.values()))
    except (OSError, ValueError, TypeError, AttributeError):
        return  # `_program` tells of the file
    if longest > alarm * _SHARE_OF_ALARM:
        what = f"its alarm of {alarm:g} s cuts short the limit of {longest:g} s in schedhook.CF"
        yield problem("pbs hook", what, f"{_INSTALL}, which sets the alarm that the limits need")


def _cgroups_hook(hooks: Path) -> Iterable[Finding]:
    control = hooks / f"{_CGROUPS_HOOK}.HK"
    if not control.is_file() or _settings(control).get("enabled", "true").lower() != "true":
        what = "missing or disabled: jobs have no cpusets and are found by their sessions"
        yield note("pbs cgroups", what, "qmgr -c 'set hook pbs_cgroups enabled = True'")
        return
    try:
        its = json.loads((hooks / f"{_CGROUPS_HOOK}.CF").read_text())
        by_node = bool(its.get("vnode_per_numa_node"))
    except (OSError, ValueError, AttributeError) as error:
        what = f"cannot read its configuration: {error}"
        yield note("pbs cgroups", what, "run as root, on an execution host")
        return
    if by_node:
        yield ok("pbs cgroups", "enabled, with a vnode for each NUMA node")
    else:
        what = (
            "vnode_per_numa_node is not set: PBS grants hosts, so a resize does not concern nodes"
        )
        remedy = 'set "vnode_per_numa_node": true in its configuration if jobs are resized'
        yield note("pbs cgroups", what, remedy)


def _settings(path: Path) -> dict[str, str]:
    """Return the values of lines NAME=VALUE."""
    lines = path.read_text(errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}
