"""Checks of plug-ins, of what the configuration chooses among them, and those they make."""

from __future__ import annotations

from collections.abc import Iterable

from schedhook.cli.doctor.setup import Setup
from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.plugins.loading import installed_names
from schedhook.values.errors import SchedhookError


def check_loading(setup: Setup) -> Iterable[Finding]:
    """Find plug-ins that could not be loaded."""
    for each in setup.plugins.problems:
        remedy = "fix or uninstall its package, or name it in `disabled` of [plugins]"
        yield problem(f"plug-in {each.source}", each.what, remedy)


def check_choices(setup: Setup) -> Iterable[Finding]:
    """Find names in [relocation], [watch] and [plugins] that no plug-in provides or has."""
    config, plugins = setup.config, setup.plugins
    yield ok("configuration", str(config.source) if config.source else "no file; using defaults")
    for choose, name in (
        (plugins.strategy, config.relocation.strategy),
        (plugins.mapper, config.relocation.mapper),
        (plugins.backend, config.relocation.backend),
        *((plugins.scheduler, name) for name in config.watch.schedulers),
    ):
        try:
            choose(name)
        except SchedhookError as error:
            yield problem("configuration", str(error), "choose one that `schedhook plugins` lists")
    for name in config.plugins.disabled:
        if name not in installed_names():
            what = f"plugins.disabled: {name} is no plug-in of an installed package"
            remedy = "remove it or correct its name; what ships with schedhook cannot be disabled"
            yield note("configuration", what, remedy)


def check_by_plugins(setup: Setup) -> Iterable[Finding]:
    """Ask each plug-in for findings of its own, such as the schedulers' adapters for theirs."""
    for source, answer in setup.plugins.ask("schedhook_doctor", root=setup.root):
        for each in answer if isinstance(answer, (list, tuple)) else [answer]:
            if isinstance(each, Finding):
                yield each
            else:
                what = str(each) if isinstance(each, SchedhookError) else f"answered {each!r}"
                yield problem(f"plug-in {source}", what, "report it to the plug-in's author")
