"""Each contract fails plug-ins with a fault, and one whose author leaves out what it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

BAD = Path(__file__).parents[2] / "plugins_bad"

SCHEDULERS = """
import json
import bad_schedulers
from schedhook.roles.scheduler import EventKind
from schedhook.testing import HookCall, SchedulerContract, write_cgroup


class Batch(SchedulerContract):
    name = "batch"

    def write_job(self, root, job):
        write_cgroup(root, f"batch/{job.id}", pids=job.pids, cpus=job.cpus, nodes=job.nodes)
        job.write_processes(root, cgroup=f"/batch/{job.id}")

    def hook_calls(self, job):
        data = json.dumps({"job": job}).encode()
        return [
            HookCall(point="prolog", kind=EventKind.JOB_STARTED, data=data),
            HookCall(point="epilog", kind=EventKind.JOB_ENDED, data=data),
        ]

"""
SCHEDULER = """
class Test{fault}(Batch):
    plugin = bad_schedulers.plugin(bad_schedulers.{fault})
"""
NEEDS_MORE = """
class TestBare(SchedulerContract):
    plugin = bad_schedulers.plugin(bad_schedulers.Good)
    name = "batch"


class TestNoCalls(Batch):
    plugin = bad_schedulers.plugin(bad_schedulers.Good)

    def hook_calls(self, job):
        return []


class TestNoJob(Batch):
    plugin = bad_schedulers.plugin(bad_schedulers.Good)

    def write_job(self, root, job):
        (root / "sys/fs/cgroup/batch").mkdir(exist_ok=True)
"""
FAULTS = {
    "FindsNoJob": "test_each_job_has_its_own_processes",
    "ListsNone": "test_the_jobs_are_listed",
    "EventOfNoJob": "test_the_calls_of_hooks_are_read",
    "AnotherName": "test_the_calls_of_hooks_are_read",
    "UnknownKind": "test_the_calls_of_hooks_are_read",
    "UnknownKindOfPoint": "test_points_have_known_kinds",
    "WrongKind": "test_the_calls_of_hooks_are_read",
    "ProcessOfAnotherJob": "test_each_job_has_its_own_processes",
    "ProcessTwice": "test_each_job_has_its_own_processes",
    "WholeHost": "test_tasks_are_placed_where_the_job_runs",
    "RaisesForGoneProcess": "test_a_process_may_end_at_any_time",
    "BelievesPaths": "test_what_cannot_be_a_job_finds_none",
    "CrashesOnGarbage": "test_an_event_is_read_or_refused",
    "AlwaysSuspended": "test_a_running_job_needs_nothing",
    "CannotReapply": "test_what_it_can_reapply_it_has_a_method_for",
    "GrantsOtherNodes": "test_granted_nodes_are_those_of_the_job",
    "ForgetsToRestore": "test_allowed_nodes_are_restored",
    "ReplacesWithoutNeed": "test_a_running_job_needs_nothing",
    "CannotRecord": "test_events_are_recorded",
    "OtherName": "test_it_has_its_name",
}

PAGES = """
import bad_page_strategies
from schedhook.testing import PageStrategyContract


class Pages(PageStrategyContract):
    name = "pages"

    def expected_pages(self):
        return {0: 16, 1: 16, 2: 16, 3: 16}

"""
PAGE_STRATEGY = """
class Test{fault}(Pages):
    plugin = bad_page_strategies.plugin(bad_page_strategies.{fault})
"""
BARE_PAGES = """
class TestBare(PageStrategyContract):
    plugin = bad_page_strategies.plugin(bad_page_strategies.good)
    name = "pages"


class TestUnmoved(Pages):
    plugin = bad_page_strategies.plugin(bad_page_strategies.moves_nothing)

    def expected_pages(self):
        return {0: 32, 1: 32}
"""
PAGE_FAULTS = {
    "moves_nothing": "test_each_page_goes_where_the_author_says",
    "too_few_answers": "test_each_page_goes_where_the_author_says",
    "base_pages_only": "test_huge_pages_are_answered_for_one_by_one",
    "ignores_allowed": "test_only_allowed_nodes_are_chosen",
    "raises": "test_each_page_goes_where_the_author_says",
    "moves_itself": "test_a_dry_run_plans_what_the_relocation_moves",
    "changes_its_mind": "test_a_dry_run_plans_what_the_relocation_moves",
}

Outcomes = Mapping[str, Mapping[str, str]]
"""`passed`, `failure`, `error` or `skipped` by test, by class; one bad parameter is enough."""


def run(directory: Path, text: str, faults: Mapping[str, str], *whole: str) -> Outcomes:
    """Run contracts in `text` as an author would: of each fault's the one test, others whole."""
    (directory / "test_author.py").write_text(text)
    chosen = [
        *(f"Test{fault}::{test}" for fault, test in faults.items()),
        *map("Test{}".format, whole),
    ]
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=line",
         "--junit-xml=results.xml", *(f"test_author.py::{each}" for each in chosen)],
        check=False, capture_output=True, text=True, cwd=directory, timeout=240,
        env={"PYTHONPATH": str(BAD), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    outcomes: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(directory / "results.xml").iter("testcase"):
        name = case.get("classname", "").rpartition(".Test")[2]
        test = case.get("name", "").partition("[")[0]
        functions = outcomes.setdefault(name, {})
        if functions.get(test, "passed") == "passed":
            functions[test] = next((each.tag for each in case), "passed")
    assert outcomes, ended.stdout + ended.stderr
    return outcomes


@pytest.fixture(scope="module")
def schedulers(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    classes = "".join(SCHEDULER.format(fault=fault) for fault in ("Good", *FAULTS))
    text = SCHEDULERS + classes + NEEDS_MORE
    whole = ("Good", "Bare", "NoCalls", "NoJob")
    return run(tmp_path_factory.mktemp("schedulers"), text, FAULTS, *whole)


@pytest.fixture(scope="module")
def page_strategies(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    classes = "".join(PAGE_STRATEGY.format(fault=fault) for fault in ("good", *PAGE_FAULTS))
    text = PAGES + classes + BARE_PAGES
    return run(tmp_path_factory.mktemp("pages"), text, PAGE_FAULTS, "good", "Bare", "Unmoved")


def test_a_sound_adapter_passes(schedulers: Outcomes) -> None:
    assert len(schedulers["Good"]) > 12
    assert set(schedulers["Good"].values()) == {"passed"}


@pytest.mark.parametrize(("fault", "test"), FAULTS.items())
def test_a_bad_adapter_fails(schedulers: Outcomes, fault: str, test: str) -> None:
    assert schedulers[fault][test] == "failure", schedulers[fault]


@pytest.mark.parametrize("name", ["Bare", "NoCalls", "NoJob"])
def test_what_the_author_of_an_adapter_leaves_out_fails(schedulers: Outcomes, name: str) -> None:
    outcomes = set(schedulers[name].values())
    assert outcomes & {"failure", "error"}
    assert "skipped" not in outcomes


def test_a_sound_page_strategy_passes(page_strategies: Outcomes) -> None:
    assert len(page_strategies["good"]) > 6
    assert set(page_strategies["good"].values()) == {"passed"}


@pytest.mark.parametrize(("fault", "test"), PAGE_FAULTS.items())
def test_a_bad_page_strategy_fails(page_strategies: Outcomes, fault: str, test: str) -> None:
    assert page_strategies[fault][test] == "failure", page_strategies[fault]


@pytest.mark.parametrize("name", ["Bare", "Unmoved"])
def test_what_the_author_of_a_page_strategy_leaves_out_fails(
    page_strategies: Outcomes, name: str
) -> None:
    assert "failure" in page_strategies[name].values()
    assert "skipped" not in page_strategies[name].values()
