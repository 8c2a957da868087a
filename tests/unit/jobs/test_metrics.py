"""What Prometheus gets to see: numbers, labels, files and the socket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schedhook import hookimpl
from schedhook.agent import exporter
from schedhook.cli.running import record
from schedhook.jobs.footprint import read_jobs
from schedhook.jobs.metrics import Footprints, exposition, write_textfile
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.roles.scheduler import Task
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
    MetricsSection,
)
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, NodeMap, Outcome, Placement, Report
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agentkit import wait_for

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


class Jobs:
    """A scheduler with the jobs that the test names: job → each task's process and nodes."""

    name = "fake"

    def __init__(self, jobs: dict[str, dict[int, str]]) -> None:
        self.known = jobs
        self.asked = 0

    def jobs(self) -> tuple[str, ...]:
        return tuple(self.known)

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
    """Only these schedulers: name → adapter's maker."""
    found = [
        SchedulerPlugin(name=name, summary="for tests", create=make)
        for name, make in create.items()
    ]
    result = Plugins()
    result.register(PluginSource(name="tests", package="tests"), Schedulers(*found))
    return result


def values(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample's value by its name and its labels' values, in the labels' alphabetical order."""
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


# -- the sums ------------------------------------------------------------------------------------


def test_relocations_are_summed(host: Path) -> None:
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        journal.reports.add(report(seconds=0.05), "slurm", "2")
        journal.reports.add(report(Outcome.COMPLETE, seconds=4000, left_by_reason={}))
        found = values(exposition(Config(), Plugins(), journal, host))
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


def test_a_plan_is_not_counted_and_a_refusal_has_moved_and_left_nothing() -> None:
    with Journal.in_memory() as journal:
        journal.reports.add(report(Outcome.PLANNED))
        journal.reports.add(report(Outcome.REFUSED))
        assert journal.counters.read() == {("relocations", "refused", "s", "none"): 1}


def test_sums_outlive_the_process_and_what_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.db"
    with Journal.open(path) as journal:
        journal.reports.add(report())
    with Journal.open(path) as journal:
        journal.prune(-1)
        journal.reports.add(report())
        assert journal.counters.read()["moved_bytes", "s", "none"] == 14 * MIB


def test_what_the_command_relocates_is_kept(tmp_path: Path) -> None:
    config = replace(Config(), journal=JournalSection(path=str(tmp_path / "s" / "journal.db")))
    record(report(), config)
    with Journal.open(tmp_path / "s" / "journal.db", create=False) as journal:
        assert journal.counters.read()["relocations", "partial", "s", "none"] == 1


# -- what is now ---------------------------------------------------------------------------------


def write_heap(host: Path, pid: int, pages: dict[int, int]) -> None:
    area = FakeArea(start=0x10000, size=sum(pages.values()) * PAGE, pages=pages)
    write_process(host, pid, areas=[area])


def test_a_job_has_the_off_node_memory_that_show_has(host: Path) -> None:
    """Two tasks beside each other's memory: their job runs on both nodes, and all is off-node."""
    write_heap(host, 100, {0: 1, 1: 4})
    write_heap(host, 101, {0: 4, 8: 2})
    jobs = Jobs({"a": {100: "0", 101: "1"}, "ended": {999: "0"}, "bare": {}})
    plugins = plugins_with(fake=lambda _: jobs)
    with Journal.in_memory() as journal:
        found = values(exposition(Config(), plugins, journal, host))
    assert found["schedhook_job_memory_bytes", ("a", "fake")] == 11 * PAGE
    assert found["schedhook_job_off_node_bytes", ("a", "fake")] == 10 * PAGE
    assert read_jobs(plugins, host)[0][0].bytes_off_node == 10 * PAGE
    assert [key for key in found if key[0] == "schedhook_job_memory_bytes"] == [
        ("schedhook_job_memory_bytes", ("a", "fake"))
    ]
    assert found["schedhook_jobs", ("fake",)] == 3
    assert found["schedhook_node_free_bytes", ("8",)] == 8 * MIB


def test_page_tables_are_walked_for_little_of_the_time(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_heap(host, 100, {0: 1})
    jobs = Jobs({"a": {100: "0"}})
    now, takes = 1000.0, 0.0

    def clock() -> float:
        nonlocal now
        now += takes
        return now

    monkeypatch.setattr("schedhook.jobs.metrics.time.monotonic", clock)
    footprints = Footprints()

    def read() -> list[str | None]:
        return [each.job for each in footprints.read(jobs, jobs.jobs(), host)]  # type: ignore[arg-type]

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


def test_names_cannot_forge_metrics(host: Path) -> None:
    name = 'x"} 1\nschedhook_jobs{scheduler="evil"} 666\n#\\'
    write_heap(host, 100, {0: 5})
    jobs = Jobs({name: {100: "0"}})
    with Journal.in_memory() as journal:
        found = values(exposition(Config(), plugins_with(fake=lambda _: jobs), journal, host))
    assert found["schedhook_job_memory_bytes", (name, "fake")] == 5 * PAGE
    assert found["schedhook_jobs", ("fake",)] == 1
    assert ("schedhook_jobs", ("evil",)) not in found


def test_a_broken_scheduler_costs_only_its_own(host: Path) -> None:
    def broken(_: Path) -> Any:
        raise RuntimeError("no")

    unlisted = Jobs({})
    unlisted.jobs = lambda: broken(host)  # type: ignore[method-assign]
    plugins = plugins_with(
        broken=broken, breaks=lambda _: unlisted, fake=lambda _: Jobs({"1": {100: "0"}})
    )
    with Journal.in_memory() as journal:
        found = values(exposition(Config(), plugins, journal, host))
    assert found["schedhook_jobs", ("fake",)] == 1
    assert ("schedhook_jobs", ("broken",)) not in found


def test_events_that_wait_are_counted(host: Path, tmp_path: Path) -> None:
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
        found = values(exposition(config, Plugins(), journal, host))
    assert found["schedhook_events_spooled", ()] == 2
    assert found["schedhook_events_waiting", ()] == 1
    assert found["schedhook_journal_damaged_rows", ()] == 1


# -- the textfile --------------------------------------------------------------------------------


def test_a_textfile_is_replaced_whole_and_followed_nowhere(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("untouched")
    target = tmp_path / "schedhook.prom"
    target.symlink_to(other)
    write_textfile(target, b"x 1\n")
    assert (target.read_bytes(), other.read_text()) == (b"x 1\n", "untouched")
    assert not target.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"other", "schedhook.prom"}


def test_a_textfile_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
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


def test_the_command_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "schedhook.prom"
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "metrics"]
    environ = os.environ | {PATH_VARIABLE: str(own_journal(tmp_path))}
    subprocess.run([*command, "--textfile", str(file)], check=True, env=environ)
    assert ("schedhook_build_info") in {name for name, _ in values(file.read_bytes())}


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
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


# -- the socket ----------------------------------------------------------------------------------


@contextmanager
def serving(tmp_path: Path, render: Any = lambda: b"x 1\n", **more: Any) -> Iterator[Path]:
    path = tmp_path / "metrics.sock"
    with exporter.exporting(MetricsSection(socket=str(path), **more), render):
        yield path


def ask(path: Path, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """The whole answer."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(path))
        link.sendall(request)
        answer = b""
        while part := link.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /metrics?debug=1 HTTP/1.0", b"200 OK"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK"),
        (b"GET /../../etc/passwd HTTP/1.1", b"404 "),
        (b"POST /metrics HTTP/1.1", b"405 "),
        (b"schedhook-event-1\0\0", b"400 "),
    ],
)
def test_requests(tmp_path: Path, request_line: bytes, status: bytes) -> None:
    with serving(tmp_path) as path:
        answer = ask(path, request_line + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status)
    is_whole = status == b"200 OK" and not request_line.startswith(b"HEAD")
    assert (body == b"x 1\n") == is_whole


@pytest.mark.parametrize("error", [SchedhookError, ZeroDivisionError])
def test_trouble_is_an_answer(tmp_path: Path, error: type[Exception]) -> None:
    def render() -> bytes:
        raise error("the journal is damaged")

    with serving(tmp_path, render) as path:
        assert ask(path).startswith(b"HTTP/1.0 500 ")
        assert b"the journal is damaged" in ask(path)


def test_it_is_read_once_a_second_at_most(tmp_path: Path) -> None:
    calls = []

    def render() -> bytes:
        calls.append(1)
        return b""

    with serving(tmp_path, render) as path:
        for _ in range(20):
            ask(path)
    assert len(calls) < 20


def test_clients_that_hang_or_flood_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_CLIENT_SECONDS", 0.2)
    with (
        serving(tmp_path, lambda: b"x" * (8 * MIB)) as path,
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX) as deaf,
    ):
        silent.connect(str(path))
        deaf.connect(str(path))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and takes nothing
        assert ask(path).endswith(b"x")


def test_a_request_that_is_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_CLIENT_SECONDS", 60)
    with serving(tmp_path) as path:
        assert b" 400 " in ask(path, b"GET /" + b"a" * 9000)


def test_the_socket_is_its_owners_or_a_groups(tmp_path: Path) -> None:
    with serving(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with serving(tmp_path, group="daemon") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.group() == "daemon"
    tmp_path.chmod(0o777)
    with serving(tmp_path) as path:
        assert not path.exists()
    tmp_path.chmod(0o700)
    with serving(tmp_path, group="nobody-has-this") as path:
        assert not path.exists()


def test_the_library_waits_until_it_is_wanted() -> None:
    code = "import sys, schedhook.agent.service; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_nothing_runs_where_nothing_is_wanted() -> None:
    before = threading.active_count()
    with exporter.exporting(MetricsSection(), lambda: b""):
        assert threading.active_count() == before


def test_the_agent_exports_and_a_second_one_leaves_it_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[journal]\npath = "{tmp_path}/state/journal.db"\n'
        f'[agent]\nsocket = "{tmp_path}/agent.sock"\nspool = "{tmp_path}/spool"\n'
        f'[metrics]\nsocket = "{tmp_path}/metrics.sock"\ntextfile = "{tmp_path}/x.prom"\n'
        "interval_s = 1\n"
    )
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "agent", "--config", str(config)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: (tmp_path / "metrics.sock").exists() and (tmp_path / "x.prom").exists())
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2
        served = ask(tmp_path / "metrics.sock").partition(b"\r\n\r\n")[2]
        assert ("schedhook_events_waiting", ()) in values(served)
        assert ("schedhook_events_waiting", ()) in values((tmp_path / "x.prom").read_bytes())
        written = (tmp_path / "x.prom").stat().st_ino
        wait_for(lambda: (tmp_path / "x.prom").stat().st_ino != written)
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
        assert not (tmp_path / "metrics.sock").exists()
    finally:
        first.kill()
        first.wait()


# -- the dashboard -------------------------------------------------------------------------------


def test_the_dashboard_names_only_metrics_and_labels_that_exist(host: Path) -> None:
    write_heap(host, 100, {0: 5})
    plugins = plugins_with(fake=lambda _: Jobs({"1": {100: "0"}}))
    with Journal.in_memory() as journal:
        journal.reports.add(report(), "slurm", "1")
        text = exposition(Config(), plugins, journal, host).decode()
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
    page = (PROJECT / "docs/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(schedhook_\w+)", page, re.MULTILINE))
    with Journal.in_memory() as journal:
        text = exposition(Config(), load_plugins(Config()), journal, host).decode()
    exposed = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert documented == exposed
