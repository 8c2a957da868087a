"""The plug-in manager: who provides what, and that a bad plug-in harms nobody else."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import schedhook
from schedhook import MapperPlugin, hookimpl
from schedhook.plugins import hookspecs
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.plugins.findings import Severity, note, ok
from schedhook.plugins.loading import TRACE_VARIABLE, load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.registry import DISABLE_VARIABLE
from schedhook.values import log
from schedhook.values.config import Config, PluginsSection
from schedhook.values.errors import MigrationRefused, PluginError
from schedhook.values.model import Event, NodeMap, Outcome, Plan, Report

BAD = Path(__file__).parents[2] / "plugins_bad"
HOOKS = {
    name: hook
    for name, hook in vars(hookspecs).items()
    if name.startswith("schedhook_") and callable(hook)
}
NODE_MAP = NodeMap(pairs={0: 1})
ARGUMENTS: dict[str, dict[str, object]] = {
    "schedhook_event": {"event": Event(scheduler="slurm", point="prolog", job="1")},
    "schedhook_before_migrate": {
        "plan": Plan(strategy="s", backend="b", node_map=NODE_MAP, processes=())
    },
    "schedhook_after_migrate": {
        "report": Report(outcome=Outcome.COMPLETE, strategy="s", backend="b", node_map=NODE_MAP)
    },
    "schedhook_job_started": {"event": Event(scheduler="slurm", point="prolog", job="1")},
    "schedhook_job_ended": {"event": Event(scheduler="slurm", point="epilog", job="1")},
}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a module an installed plug-in, as package metadata tell it."""
    monkeypatch.syspath_prepend(BAD)
    monkeypatch.syspath_prepend(tmp_path)

    def write(module: str, *, name: str = "", package: str = "", source: str = "") -> None:
        name, package = name or module.replace("_", "-"), package or module.replace("_", "-")
        if source:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        directory = tmp_path / f"{package.replace('-', '_')}-1.5.dist-info"
        directory.mkdir(exist_ok=True)
        (directory / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n"
        )
        with (directory / "entry_points.txt").open("a") as points:
            points.write(f"[schedhook]\n{name} = {module}\n")
        # What an earlier test imported under this name may be another file.
        monkeypatch.delitem(sys.modules, module, raising=False)

    return write


@pytest.fixture(autouse=True)
def _json_log() -> None:
    log.configure("json", "info")


def load(environ: dict[str, str] | None = None, **keys: Any) -> Plugins:
    return load_plugins(Config(plugins=PluginsSection(**keys)), environ=environ or {})


def given(*plugins: object) -> Plugins:
    config = Config(plugins=PluginsSection(third_party=False))
    return load_plugins(config, extra=plugins, environ={})


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def a_map(*_: object) -> NodeMap:
    return NODE_MAP


def module(name: str, **members: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def provides(name: str, summary: str = "for a test") -> object:
    """A plug-in with one mapper."""

    @hookimpl
    def schedhook_mappers() -> list[MapperPlugin]:
        return [MapperPlugin(name=name, summary=summary, map=a_map)]

    return module(f"gives_{name}", schedhook_mappers=schedhook_mappers)


# What ships


def test_what_ships_loads_without_a_problem() -> None:
    plugins = load(third_party=False)
    assert plugins.problems == ()
    found = {(each.role, each.name) for each in plugins.listing()}
    assert found >= {
        ("mapper", "relative"),
        ("mapper", "nearest"),
        ("strategy", "migrate-process"),
        ("strategy", "move-pages"),
        ("backend", "native"),
        ("backend", "simulated"),
    }
    assert {each.source.package for each in plugins.listing()} == {"built-in"}


def test_what_ships_imports_nothing_that_an_author_may_not() -> None:
    """Only public names, so that every plug-in of ours could have been a stranger's."""
    package = Path(inspect.getfile(__import__("schedhook_plugins"))).parent
    files = [path for path in package.rglob("*.py") if "example" not in path.parts]
    assert len(files) > 2
    for path in files:
        for statement in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(statement, ast.ImportFrom):
                module = statement.module or ""
                names = [*module.split("."), *(each.name for each in statement.names)]
            elif isinstance(statement, ast.Import):
                names = [part for each in statement.names for part in each.name.split(".")]
            private = [name for name in names if name.startswith("_") and name != "__future__"]
            assert not private, f"{path}:{getattr(statement, 'lineno', 0)}: {private}"


# Looking up


def test_unknown_names_list_those_that_exist() -> None:
    plugins = given(provides("alpha"))
    with pytest.raises(PluginError, match=r"no mapper is called 'beta'; there are: alpha, nearest"):
        plugins.mapper("beta")
    with pytest.raises(PluginError, match="no scheduler is called 'lsf'; there are: "):
        plugins.scheduler("lsf")
    with pytest.raises(PluginError, match=r"no strategy is called 'relative'"):
        plugins.strategy("relative")
    with pytest.raises(PluginError, match=r"no backend is called ''"):
        plugins.backend("")


def test_a_name_that_two_provide_fails_only_when_asked_for(install: Install) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    plugins = load()
    with pytest.raises(PluginError) as caught:
        plugins.mapper("relative")
    assert "copycat (copy-cat 1.5)" in str(caught.value)
    assert "schedhook_plugins.mappers (built-in)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert plugins.mapper("nearest").name == "nearest"
    assert plugins.mapper("stay").map is not None
    assert plugins.problems == ()
    listed = [each.source.package for each in plugins.listing() if each.name == "relative"]
    assert listed == ["built-in", "copy-cat 1.5"]


def test_one_name_in_two_roles_is_fine() -> None:
    @hookimpl
    def schedhook_strategies() -> list[StrategyPlugin]:
        return [StrategyPlugin(name="relative", summary="a strategy", move=lambda _: None)]

    plugins = given(module("other", schedhook_strategies=schedhook_strategies))
    assert plugins.strategy("relative").summary == "a strategy"
    assert plugins.mapper("relative").summary != "a strategy"


def test_a_name_provided_twice_by_one_plug_in_is_ambiguous_too() -> None:
    @hookimpl
    def schedhook_mappers() -> list[MapperPlugin]:
        return [MapperPlugin(name="twin", summary=text, map=a_map) for text in ("first", "second")]

    plugins = given(module("twins", schedhook_mappers=schedhook_mappers))
    with pytest.raises(PluginError, match=r"twins \(given\) and twins \(given\)"):
        plugins.mapper("twin")


# Third parties


def test_an_installed_package_is_found_by_its_entry_point(install: Install) -> None:
    install(
        "acme_mapper",
        name="acme",
        package="acme-numa",
        source="""
            from schedhook import MapperPlugin, hookimpl

            @hookimpl
            def schedhook_mappers():
                return [MapperPlugin(name="acme-map", summary="by Acme", map=print)]
        """,
    )
    plugins = load()
    assert plugins.mapper("acme-map").summary == "by Acme"
    (listed,) = [each for each in plugins.listing() if each.name == "acme-map"]
    assert (listed.role, listed.source.name) == ("mapper", "acme")
    assert listed.source.package == "acme-numa 1.5"


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ({DISABLE_VARIABLE: "all"}, {}),
        ({DISABLE_VARIABLE: "other, copycat"}, {}),
        ({DISABLE_VARIABLE: "copy-cat"}, {}),
        ({}, {"third_party": False}),
        ({}, {"disabled": ("copycat",)}),
        ({}, {"disabled": ("copy-cat",)}),
    ],
)
def test_a_disabled_plug_in_is_not_even_imported(
    install: Install, environ: dict[str, str], keys: dict[str, Any]
) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    plugins = load(environ, **keys)
    assert plugins.mapper("relative").name == "relative"
    assert "bad_duplicate" not in sys.modules
    assert "stay" in load().names(MapperPlugin), "without being disabled it would have been there"


def test_disabling_another_name_changes_nothing(install: Install) -> None:
    install("bad_duplicate", name="copycat", package="copy-cat")
    assert "stay" in load({DISABLE_VARIABLE: "copy,cat,"}, disabled=("all",)).names(MapperPlugin)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("bad_import_error", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("bad_exits_at_import", "SystemExit: this host is not licensed"),
        ("bad_signature", "mood"),
        ("bad_hook_name", "schedhook_mapper is not a plug-in hook"),
        ("bad_wrapper", "schedhook_mappers is a wrapper"),
        ("bad_no_hooks", "has no plug-in hooks"),
        ("bad_name", "'My Mapper' is not a name for a descriptor"),
        ("bad_raises", "schedhook_strategies: OSError: no such device"),
        ("bad_returns_nothing", "schedhook_mappers returned None instead of a list"),
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_broken_plug_in_is_recorded_and_harms_nobody(
    install: Install, capsys: pytest.CaptureFixture[str], module: str, complaint: str
) -> None:
    install(module, name="broken", package="broken-one")
    install("bad_duplicate", name="sound", package="z-sound")
    plugins = load()
    (problem,) = plugins.problems
    assert str(problem.source) == "broken (broken-one 1.5)"
    assert complaint in problem.what
    assert "\n" not in problem.what
    assert plugins.mapper("nearest").name == "nearest"
    assert plugins.mapper("stay").name == "stay"
    for hook, arguments in ARGUMENTS.items():
        plugins.notify(hook, **arguments)
    (line,) = logged(capsys)
    assert line["level"] == "warning"
    assert line["plugin"] == "broken (broken-one 1.5)"
    with pytest.raises(PluginError, match="1 broken, see `schedhook plugins`"):
        plugins.mapper("what-the-broken-one-had")


def test_the_sound_part_of_a_broken_plug_in_stays(install: Install) -> None:
    install("bad_raises")
    install("bad_return_type")
    plugins = load()
    assert plugins.mapper("sound").name == "sound"
    assert plugins.mapper("in-place").name == "in-place"
    assert {"misplaced", "bare"}.isdisjoint(plugins.names(StrategyPlugin))
    assert "misplaced" not in plugins.names(MapperPlugin)
    whats = [each.what for each in plugins.problems if each.source.name == "bad-return-type"]
    assert len(whats) == 2
    assert any("instead of a list" in what for what in whats)
    assert any("instead of a MapperPlugin" in what for what in whats)


def test_the_user_may_interrupt_the_loading(install: Install) -> None:
    install("bad_interrupted")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_a_module_named_by_two_entry_points_is_loaded_once(install: Install) -> None:
    install("bad_duplicate", name="first", package="copy-cat")
    install("bad_duplicate", name="second", package="copy-cat")
    plugins = load()
    (problem,) = plugins.problems
    assert problem.source.name == "second"
    assert "is the same as first (copy-cat 1.5)" in problem.what
    assert plugins.mapper("stay").name == "stay"


def test_an_unhashable_plug_in_does_not_get_in_the_way_of_others() -> None:
    @dataclass
    class Odd:
        mood: str = "odd"

        @hookimpl
        def schedhook_event(self) -> None: ...

    watcher = Watcher()
    plugins = given(Odd(), watcher)
    plugins.notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    assert len(watcher.seen) == 1
    assert "unhashable" in plugins.problems[0].what


def test_unreadable_package_metadata_is_a_problem_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(**_: object) -> None:
        raise ValueError("metadata of some package are garbage")

    monkeypatch.setattr("importlib.metadata.entry_points", broken)
    plugins = load()
    (problem,) = plugins.problems
    assert "garbage" in problem.what
    assert plugins.mapper("relative").name == "relative"


# Observers


class Watcher:
    """An observer that keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        self.seen.append(event)

    @hookimpl
    def schedhook_before_migrate(self, plan: Plan) -> None:
        self.seen.append(plan)

    @hookimpl
    def schedhook_after_migrate(self, report: Report) -> None:
        self.seen.append(report)

    @hookimpl
    def schedhook_job_started(self, event: Event) -> None:
        self.seen.append(event)

    @hookimpl
    def schedhook_job_ended(self, event: Event) -> None:
        self.seen.append(event)


class Refusing:
    @hookimpl
    def schedhook_before_migrate(self, plan: Plan) -> None:
        raise MigrationRefused(f"not by {plan.strategy}")


def test_every_observer_hook_has_an_argument_for_the_tests_here() -> None:
    registering = {
        "schedhook_schedulers",
        "schedhook_mappers",
        "schedhook_strategies",
        "schedhook_backends",
    }
    assert set(HOOKS) - registering - {"schedhook_doctor"} == set(ARGUMENTS)


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_a_failing_observer_is_logged_and_the_others_are_called(
    install: Install, capsys: pytest.CaptureFixture[str], hook: str
) -> None:
    install("bad_observer", name="grumpy", package="grumpy-tools")
    before, after = Watcher(), Watcher()
    plugins = load_plugins(Config(), extra=[after], environ={DISABLE_VARIABLE: ""})
    plugins.register(plugins.listing()[0].source, before)
    plugins.notify(hook, **ARGUMENTS[hook])
    assert before.seen == after.seen == list(ARGUMENTS[hook].values())
    (line,) = logged(capsys)
    assert line["level"] == "warning"
    assert line["plugin"] == "grumpy (grumpy-tools 1.5)"
    assert line["hook"] == hook
    assert "\n" not in line["error"]


def test_a_refusal_before_the_migration_stops_it_and_names_the_plug_in() -> None:
    with pytest.raises(MigrationRefused, match=r"^Refusing \(given\): not by s$"):
        given(Watcher(), Refusing()).notify(
            "schedhook_before_migrate", **ARGUMENTS["schedhook_before_migrate"]
        )


def test_a_refusal_stops_it_even_beside_a_failing_observer(install: Install) -> None:
    install("bad_observer")
    for plugins in (
        load_plugins(Config(), extra=[Refusing()], environ={}),
        load_plugins(Config(), extra=[Watcher(), Refusing()], environ={}),
    ):
        with pytest.raises(MigrationRefused):
            plugins.notify("schedhook_before_migrate", **ARGUMENTS["schedhook_before_migrate"])


def test_observers_are_listed_with_what_they_see() -> None:
    plugins = given(Refusing(), Watcher(), provides("alpha"))
    listed = {each.name: each.summary for each in plugins.listing() if each.role == "observer"}
    assert listed == {"Refusing": "schedhook_before_migrate", "Watcher": ", ".join(ARGUMENTS)}


def test_an_unknown_hook_is_the_programmers_mistake() -> None:
    with pytest.raises(AttributeError):
        given().notify("schedhook_no_such_hook")


def test_an_observers_traceback_is_there_for_who_debugs(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "debug")
    install("bad_observer")
    load().notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    assert any("cannot cope with" in line.get("exception", "") for line in logged(capsys))


# Tracing


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_tracing_logs_every_call(
    capsys: pytest.CaptureFixture[str], value: str, expected: bool
) -> None:
    plugins = load_plugins(
        Config(plugins=PluginsSection(third_party=False)),
        extra=[Watcher(), provides("alpha")],
        environ={TRACE_VARIABLE: value},
    )
    plugins.notify("schedhook_event", **ARGUMENTS["schedhook_event"])
    calls = [
        (line["hook"], line["plugin"])
        for line in logged(capsys)
        if line["event"] == "plug-in hook called"
    ]
    assert (("schedhook_event", "Watcher (given)") in calls) is expected
    assert (("schedhook_mappers", "gives_alpha (given)") in calls) is expected


# Descriptors and specifications


@pytest.mark.parametrize("name", ["a", "move-pages", "x9", "a-"])
def test_good_names(name: str) -> None:
    assert MapperPlugin(name=name, summary="s", map=a_map).name == name


@pytest.mark.parametrize("name", ["", "A", "9a", "-a", "a_b", "a b", "a\n", "ä", None, 7])
def test_bad_names(name: Any) -> None:
    with pytest.raises(PluginError, match="is not a name for a descriptor"):
        MapperPlugin(name=name, summary="s", map=a_map)


@pytest.mark.parametrize("summary", ["", "two\nlines", None])
def test_bad_summaries(summary: Any) -> None:
    with pytest.raises(PluginError, match="one line"):
        MapperPlugin(name="a", summary=summary, map=a_map)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    assert inspect.getdoc(HOOKS[hook])


REGISTERING = [hook for hook in HOOKS if hook not in (*ARGUMENTS, "schedhook_doctor")]


@pytest.mark.parametrize("hook", REGISTERING)
def test_the_example_of_a_registration_hook_works(hook: str) -> None:
    text = inspect.getdoc(HOOKS[hook]) or ""
    example = text.partition("\n\n")[2]
    assert f"def {hook}():" in example
    names: dict[str, object] = {name: getattr(schedhook, name) for name in schedhook.__all__}
    names |= dict.fromkeys(["FluxScheduler", "RemoteBackend", "hot_first"], a_map)
    names["NodeMap"] = NodeMap
    exec(compile(example, hook, "exec"), names)
    plugins = given(module("example", **{hook: names[hook]}))
    assert plugins.problems == ()
    wanted = re.findall(r'name="([a-z-]+)"', example)
    listed = [each.name for each in plugins.listing() if each.source.package == "given"]
    assert listed == wanted


def test_the_example_of_the_answering_hook_works(tmp_path: Path) -> None:
    hook = "schedhook_doctor"
    example = (inspect.getdoc(HOOKS[hook]) or "").partition("\n\n")[2]
    names: dict[str, object] = {"hookimpl": schedhook.hookimpl, "ok": ok, "note": note}
    exec(compile(example, hook, "exec"), names)
    answers = given(module("example", **{hook: names[hook]})).ask(hook, root=tmp_path)
    (answer,) = [each for source, each in answers if source.package == "given"]
    assert [each.level for each in answer] == [Severity.NOTE]


# What loading costs


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_costs_next_to_nothing() -> None:
    loaded = modules_after("import schedhook")
    assert "schedhook" in loaded
    assert {"pluggy", "schedhook.plugins.hookspecs", "dataclasses"}.isdisjoint(loaded)


def test_loading_the_plug_ins_imports_nothing_heavy() -> None:
    loaded = modules_after(
        "from schedhook.values.config import Config\n"
        "from schedhook.plugins.loading import load_plugins\n"
        "plugins = load_plugins(Config(), environ={'SCHEDHOOK_DISABLE_PLUGINS': 'all'})\n"
        "assert not plugins.problems, plugins.problems\n"
    )
    assert "schedhook_plugins.mappers" in loaded
    heavy = {"rich", "click", "structlog", "tenacity", "importlib.metadata", "tomllib"}
    assert heavy.isdisjoint(loaded)
    assert "schedhook.backends.native._core" not in loaded
