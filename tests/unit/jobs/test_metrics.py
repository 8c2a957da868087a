"""Metrics: numbers, labels, the textfile and the dashboard."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from schedhook import hookimpl
from schedhook.cli.running import record
from schedhook.jobs.footprint import read_jobs
from schedhook.jobs.footprint_cache import FootprintCache
from schedhook.jobs.metrics import Format, Metrics, write_textfile
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.config import (
    PATH_VARIABLE,
    AgentSection,
    Config,
    JournalSection,
)
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, NodeMap, Outcome, Placement, Report
from schedhook.values.sets import CpuSet, NodeSet

MIB = 1 << 20
PAGE = 4096
PROJECT = Path(__file__).parents[3]


def report(outcome: Outcome = Outcome.PARTIAL, seconds: float = 0.7, **more: Any) -> Report:
    values: dict[str, Any] = {
        "bytes_planned": 10 * MIB,
        "bytes_moved": 7 * MIB,
        "bytes_left": 3 * MIB,
        "left_by_reason": {"EBUSY": 2 * MIB, "shared": 1 * MIB},
        **more,
    }
    node_map = NodeMap(pairs={0: 1})
    return Report(
        outcome=outcome, strategy="s", backend="b", node_map=node_map, seconds=seconds, **values
    )


class Jobs(Scheduler):
    """A scheduler with given jobs: job → {process of each task: its nodes}."""

    name = "fake"

    def __init__(self, jobs: dict[str, dict[int, str]]) -> None:
        super().__init__()
        self.known = jobs
        self.owners: dict[str, int] = {}
        self.asked = 0

    def jobs(self) -> tuple[str, ...]:
        return tuple(self.known)

    def owner(self, job: str) -> int | None:
        return self.owners.get(job)

    def tasks(self, job: str) -> tuple[Task, ...]:
        self.asked += 1
        return tuple(
            Task(
                name=str(pid),
                pids=(pid,),
                placement=Placement(cpus=CpuSet(), nodes=NodeSet.parse(nodes)),
            )
            for pid, nodes in self.known[job].items()
        )


class Schedulers:
    def __init__(self, *plugins: SchedulerPlugin) -> None:
        self._plugins = plugins

    @hookimpl
    def schedhook_schedulers(self) -> list[SchedulerPlugin]:
        return list(self._plugins)


def plugins_with(**create: Any) -> Plugins:
    """Return plug-ins with only these schedulers: name → function that makes the adapter."""
    found = [
        SchedulerPlugin(name=name, summary="for tests", create=make)
        for name, make in create.items()
    ]
    result = Plugins()
    result.register(PluginSource(name="tests", package="tests"), Schedulers(*found))
    return result


def render(
    config: Config, plugins: Plugins, journal: Journal, host: Path, form: Format = Format.TEXT
) -> bytes:
    return Metrics(config=config, plugins=plugins, journal=journal, root=host).render(form)


def values(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by its name and its labels' values, in alphabetical order of labels."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
def host(tmp_path: Path) -> Path:
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n), free=n * MIB) for n in (0, 1, 8)])
    write_cgroup_mounts(tmp_path)
    return tmp_path


# -- counters --------------------------------------------------------------------------------------


def test_relocations_are_counted_and_summed(host: Path) -> None:
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        journal.reports.add(report(seconds=0.05), "slurm", "2")
        journal.reports.add(report(Outcome.COMPLETE, seconds=4000, left_by_reason={}))
        found = values(render(Config(), Plugins(), journal, host))
    assert found["schedhook_relocations_total", ("partial", "slurm", "s")] == 2
    assert found["schedhook_relocations_total", ("complete", "none", "s")] == 1
    assert found["schedhook_moved_bytes_total", ("slurm", "s")] == 14 * MIB
    assert found["schedhook_left_bytes_total", ("EBUSY", "slurm")] == 4 * MIB
    assert found["schedhook_left_bytes_total", ("shared", "slurm")] == 2 * MIB
    buckets = {
        labels[0]: value
        for (name, labels), value in found.items()
        if name == "schedhook_relocation_seconds_bucket"
    }
    assert (buckets["0.01"], buckets["0.1"], buckets["1"]) == (0, 1, 2)
    assert (buckets["1800"], buckets["+Inf"]) == (2, 3)
    assert found["schedhook_relocation_seconds_sum", ("s",)] == pytest.approx(4000.75)


def test_a_plan_is_not_counted_and_a_refusal_only_as_a_relocation() -> None:
    with Journal.in_memory() as journal:
        journal.reports.add(report(Outcome.PLANNED))
        journal.reports.add(report(Outcome.REFUSED))
        assert journal.counters.read() == {("relocations", "refused", "s", "none"): 1}


def test_counters_survive_a_restart_and_pruning(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.db"
    with Journal.open(path) as journal:
        journal.reports.add(report())
    with Journal.open(path) as journal:
        journal.prune(-1)
        journal.reports.add(report())
        assert journal.counters.read()["moved_bytes", "s", "none"] == 14 * MIB


def test_a_relocation_by_the_command_is_counted(tmp_path: Path) -> None:
    config = replace(Config(), journal=JournalSection(path=str(tmp_path / "s" / "journal.db")))
    record(report(), config)
    with Journal.open(tmp_path / "s" / "journal.db", create=False) as journal:
        assert journal.counters.read()["relocations", "partial", "s", "none"] == 1


# -- gauges ----------------------------------------------------------------------------------------


def write_heap(host: Path, pid: int, pages: dict[int, int]) -> None:
    area = FakeArea(start=0x10000, size=sum(pages.values()) * PAGE, pages=pages)
    write_process(host, pid, areas=[area])


def test_off_node_memory_is_what_show_prints(host: Path) -> None:
    """Two tasks, each on the node of the other's memory: their job runs on both nodes."""
    write_heap(host, 100, {0: 1, 1: 4})
    write_heap(host, 101, {0: 4, 8: 2})
    jobs = Jobs({"a": {100: "0", 101: "1"}, "ended": {999: "0"}, "bare": {}})
    plugins = plugins_with(fake=lambda _: jobs)
    with Journal.in_memory() as journal:
        found = values(render(Config(), plugins, journal, host))
    assert found["schedhook_job_memory_bytes", ("", "a", "fake", "")] == 11 * PAGE
    assert found["schedhook_job_off_node_bytes", ("", "a", "fake", "")] == 10 * PAGE
    assert read_jobs(plugins, host)[0][0].bytes_off_node == 10 * PAGE
    assert [key for key in found if key[0] == "schedhook_job_memory_bytes"] == [
        ("schedhook_job_memory_bytes", ("", "a", "fake", ""))
    ]
    assert found["schedhook_jobs", ("fake",)] == 3
    assert found["schedhook_node_free_bytes", ("8",)] == 8 * MIB


def test_a_job_is_named_with_its_user(host: Path) -> None:
    write_heap(host, 100, {0: 1})
    write_heap(host, 101, {0: 1})
    jobs = Jobs({"a": {100: "0"}, "b": {101: "0"}})
    jobs.owners = {"a": 0, "b": 1 << 30}
    with Journal.in_memory() as journal:
        text = render(Config(), plugins_with(fake=lambda _: jobs), journal, host).decode()
    series = {
        (sample.labels["jobid"], sample.labels["user"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "schedhook_job_memory_bytes"
    }
    assert series == {("a", "root"), ("b", str(1 << 30))}


def test_page_tables_are_walked_for_a_small_share_of_the_time(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_heap(host, 100, {0: 1})
    jobs = Jobs({"a": {100: "0"}})
    now, takes = 1000.0, 0.0

    def clock() -> float:
        nonlocal now
        now += takes
        return now

    monkeypatch.setattr("schedhook.jobs.footprint_cache.time.monotonic", clock)
    footprints = FootprintCache()

    def read() -> list[str | None]:
        return [each.job for each in footprints.read(jobs, jobs.jobs(), host)]

    assert (read(), jobs.asked) == (["a"], 1)
    now += 59
    assert (read(), jobs.asked) == (["a"], 1)
    del jobs.known["a"]
    assert read() == []
    jobs.known["b"] = {100: "0"}
    now += 2
    assert (read(), jobs.asked) == (["b"], 2)
    now += 60
    takes = 10.0
    assert (read(), jobs.asked) == (["b"], 3)
    takes = 0.0
    now += 190
    assert (read(), jobs.asked) == (["b"], 3)
    now += 20
    assert (read(), jobs.asked) == (["b"], 4)


def test_job_ids_cannot_forge_metrics(host: Path) -> None:
    name = 'x"} 1\nschedhook_jobs{scheduler="evil"} 666\n#\\'
    write_heap(host, 100, {0: 5})
    jobs = Jobs({name: {100: "0"}})
    with Journal.in_memory() as journal:
        found = values(render(Config(), plugins_with(fake=lambda _: jobs), journal, host))
    assert found["schedhook_job_memory_bytes", ("", name, "fake", "")] == 5 * PAGE
    assert found["schedhook_jobs", ("fake",)] == 1
    assert ("schedhook_jobs", ("evil",)) not in found


def test_a_broken_adapter_hides_only_its_own_metrics(host: Path) -> None:
    def broken(_: Path) -> Any:
        raise RuntimeError("no")

    unlisted = Jobs({})
    unlisted.jobs = lambda: broken(host)  # type: ignore[method-assign]
    plugins = plugins_with(
        broken=broken, breaks=lambda _: unlisted, fake=lambda _: Jobs({"1": {100: "0"}})
    )
    with Journal.in_memory() as journal:
        found = values(render(Config(), plugins, journal, host))
    assert found["schedhook_jobs", ("fake",)] == 1
    assert ("schedhook_jobs", ("broken",)) not in found


def test_metrics_that_cannot_be_read_are_said(host: Path) -> None:
    with Journal.in_memory() as journal:
        journal.database.connection.execute("DROP TABLE counters")
        found = values(render(Config(), Plugins(), journal, host))
    assert found["schedhook_collector_success", ("counters",)] == 0
    assert found["schedhook_collector_success", ("nodes",)] == 1


def test_no_label_is_one_that_prometheus_gives_itself(host: Path) -> None:
    """It would rename ours to `exported_job`."""
    write_heap(host, 100, {0: 1})
    plugins = plugins_with(fake=lambda _: Jobs({"1": {100: "0"}}))
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        text = render(Config(), plugins, journal, host).decode()
    labels = {
        label
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for label in sample.labels
    }
    assert "jobid" in labels
    assert not labels & {"job", "instance"}
    assert not [label for label in labels if label.startswith(("__", "exported_"))]


def test_openmetrics_has_the_units(host: Path) -> None:
    write_heap(host, 100, {0: 1})
    plugins = plugins_with(fake=lambda _: Jobs({"1": {100: "0"}}))
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        text = render(Config(), plugins, journal, host, Format.OPENMETRICS).decode()
        plain = values(render(Config(), plugins, journal, host))
    families = list(openmetrics.text_string_to_metric_families(text))
    units = {family.name: family.unit for family in families}
    assert {name for name, unit in units.items() if unit == "bytes"} == {
        "schedhook_moved_bytes", "schedhook_left_bytes", "schedhook_job_memory_bytes",
        "schedhook_job_off_node_bytes", "schedhook_node_free_bytes",
    }  # fmt: skip
    assert units["schedhook_relocation_seconds"] == "seconds"
    assert {sample.name for each in families for sample in each.samples} == {
        name for name, _ in plain
    }


def test_the_agent_is_up_if_one_answers(host: Path, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    config = replace(Config(), agent=AgentSection(socket=str(path)))
    with Journal.in_memory() as journal:
        assert values(render(config, Plugins(), journal, host))["schedhook_agent_up", ()] == 0
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            assert values(render(config, Plugins(), journal, host))["schedhook_agent_up", ()] == 0


def test_waiting_events_are_counted(host: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in ("1.event", "2.event", "3.tmp"):
        (spool / name).touch()
    config = replace(Config(), agent=AgentSection(spool=str(spool)))
    with Journal.in_memory() as journal:
        for job in ("7", "8"):
            journal.events.put(Event(scheduler="slurm", point="prolog", job=job), 5.0)
        journal.database.connection.execute("UPDATE events SET data = '' WHERE job = '7'")
        journal.events.list_unfinished()
        found = values(render(config, Plugins(), journal, host))
    assert found["schedhook_events_spooled", ()] == 2
    assert found["schedhook_events_waiting", ()] == 1
    assert found["schedhook_journal_damaged_rows", ()] == 1


# -- the textfile ----------------------------------------------------------------------------------


def test_a_textfile_is_replaced_and_links_are_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("untouched")
    target = tmp_path / "schedhook.prom"
    target.symlink_to(other)
    write_textfile(target, b"x 1\n")
    assert (target.read_bytes(), other.read_text()) == (b"x 1\n", "untouched")
    assert not target.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"other", "schedhook.prom"}


def test_a_textfile_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SchedhookError, match=r"missing/x\.prom: cannot be written"):
        write_textfile(tmp_path / "missing" / "x.prom", b"")
    (tmp_path / "x.prom").mkdir()
    with pytest.raises(SchedhookError):
        write_textfile(tmp_path / "x.prom", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]


def own_journal(directory: Path) -> Path:
    """Return a configuration file with a journal in `directory`, not that of this host."""
    config = directory / "config.toml"
    config.write_text(f'[journal]\npath = "{directory}/journal/journal.db"\n')
    return config


def test_the_command_writes_a_textfile(tmp_path: Path) -> None:
    file = tmp_path / "schedhook.prom"
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "metrics"]
    environ = os.environ | {PATH_VARIABLE: str(own_journal(tmp_path))}
    subprocess.run([*command, "--textfile", str(file)], check=True, env=environ)
    assert ("schedhook_build_info") in {name for name, _ in values(file.read_bytes())}


def test_without_prometheus_client_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    code = "from schedhook.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "metrics"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), PATH_VARIABLE: str(own_journal(tmp_path))},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'schedhook[metrics]'" in done.stderr
    assert done.stderr.count("\n") == 1


# -- the dashboard ---------------------------------------------------------------------------------


def test_the_dashboard_names_only_metrics_and_labels_that_exist(host: Path) -> None:
    write_heap(host, 100, {0: 5})
    plugins = plugins_with(fake=lambda _: Jobs({"1": {100: "0"}}))
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        text = render(Config(), plugins, journal, host).decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    labels: dict[str, set[str]] = {}
    for sample in samples:
        labels.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads((PROJECT / "contrib/grafana/schedhook.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    queries += [each["query"] for each in dashboard["templating"]["list"] if "query" in each]
    used = set()
    for query in queries:
        names = set(re.findall(r"schedhook_\w+", query))
        assert names <= set(labels), query
        used |= names
        known = {label for name in names for label in labels[name]} | {"instance", "job_name"}
        for part in re.findall(r"by ?\(([^)]*)\)", query):
            assert {label.strip() for label in part.split(",")} <= known, query
    plain = {re.sub(r"_(sum|count|bucket)$", "", name) for name in labels}
    shown = {re.sub(r"_(sum|count|bucket)$", "", name) for name in used}
    assert plain - shown <= {"schedhook_build_info"}


def test_every_metric_is_documented(host: Path) -> None:
    page = (PROJECT / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(schedhook_\w+)", page, re.MULTILINE))
    with Journal.in_memory() as journal:
        text = render(Config(), load_plugins(Config()), journal, host).decode()
    exposed = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert documented == exposed
