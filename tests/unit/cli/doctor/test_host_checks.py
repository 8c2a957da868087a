"""The examination: what it finds on a made-up host and on this one, and that it never breaks."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook import hookimpl
from schedhook.cli.doctor.examination import examine
from schedhook.cli.main import main
from schedhook.journal.journal import Journal
from schedhook.plugins.findings import Finding, Severity, ok
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_file, write_host
from schedhook.values.config import (
    AgentSection,
    Config,
    JournalSection,
    MetricsSection,
    RelocationSection,
)
from schedhook.values.model import Event
from tests.unit import agentkit


@pytest.fixture
def plugins() -> Plugins:
    return load_plugins(Config(), environ={"SCHEDHOOK_DISABLE_PLUGINS": "all"})


def found(findings: list[Finding], subject: str) -> Finding:
    (finding,) = [each for each in findings if each.subject == subject]
    return finding


def test_this_host_is_examined(plugins: Plugins) -> None:
    findings = examine(Config(), plugins)
    assert found(findings, "move_pages").level is Severity.OK
    assert "Linux" in found(findings, "versions").what
    assert all(each.remedy for each in findings if each.level is not Severity.OK)


def test_balancing_is_said(plugins: Plugins, tmp_path: Path) -> None:
    setting = tmp_path / "proc/sys/kernel/numa_balancing"
    setting.parent.mkdir(parents=True)
    for text, level in (("1\n", Severity.NOTE), ("0\n", Severity.OK)):
        setting.write_text(text)
        assert found(examine(Config(), plugins, tmp_path), "numa_balancing").level is level


def test_a_host_without_files_is_a_finding_not_a_crash(plugins: Plugins, tmp_path: Path) -> None:
    findings = examine(Config(), plugins, tmp_path)
    assert any(each.level is Severity.PROBLEM for each in findings)


def test_a_choice_that_does_not_exist_is_found(plugins: Plugins) -> None:
    config = replace(Config(), relocation=RelocationSection(strategy="telepathy"))
    problems = [each for each in examine(config, plugins) if each.level is Severity.PROBLEM]
    assert any("telepathy" in each.what for each in problems)


# -- plug-ins ------------------------------------------------------------------------------------


class Answers:
    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer

    @hookimpl
    def schedhook_doctor(self) -> object:
        return self._answer()


def test_a_plug_in_that_fails_or_talks_nonsense_is_a_finding(tmp_path: Path) -> None:
    plugins = Plugins()
    good = ok("theirs", "fine")
    for name, answer in (
        ("good", lambda: [good]),
        ("fails", lambda: 1 / 0),
        ("nonsense", lambda: ["all well"]),
        ("silent", lambda: None),
    ):
        plugins.register(PluginSource(name=name, package="t"), Answers(answer))
    findings = examine(Config(), plugins, tmp_path)
    assert good in findings
    assert "division" in found(findings, "plug-in fails (t)").what
    assert "all well" in found(findings, "plug-in nonsense (t)").what
    assert not [each for each in findings if "silent" in each.subject]


# -- schedhook's own service ---------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Config:
    return replace(
        Config(),
        agent=AgentSection(socket=str(tmp_path / "agent.sock"), spool=str(tmp_path / "spool")),
        journal=JournalSection(path=str(tmp_path / "state" / "journal.db")),
    )


def test_an_agent_that_runs_answers(plugins: Plugins, service: Config, tmp_path: Path) -> None:
    assert found(examine(service, plugins), "agent").level is Severity.NOTE
    with agentkit.agent(tmp_path):
        assert found(examine(service, plugins), "agent").level is Severity.OK
        assert found(examine(service, plugins), "journal").level is Severity.OK


@contextmanager
def listening(path: Path, answer: bytes | None) -> Iterator[None]:
    """Somebody at the socket who says that; None: who never says anything."""
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            if answer is None:
                stop.wait(20)
            else:
                connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        stop.set()
        thread.join()


@pytest.mark.parametrize("answer", [None, b"", b"ok\n"])
def test_an_agent_that_hangs_or_is_none(
    plugins: Plugins, service: Config, answer: bytes | None
) -> None:
    with listening(Path(service.agent.socket), answer):
        assert found(examine(service, plugins), "agent").level is Severity.PROBLEM


def test_a_socket_that_nobody_serves(plugins: Plugins, service: Config) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(service.agent.socket)
    assert found(examine(service, plugins), "agent").level is Severity.PROBLEM


def test_the_spool(plugins: Plugins, service: Config) -> None:
    spool = Path(service.agent.spool)
    spool.mkdir(mode=0o700)
    assert found(examine(service, plugins), "spool").level is Severity.OK
    (spool / "1.event").touch()
    assert found(examine(service, plugins), "spool").what.startswith("1 events wait")
    spool.chmod(0o777)
    assert found(examine(service, plugins), "spool").level is Severity.PROBLEM


def test_the_journal(plugins: Plugins, service: Config) -> None:
    path = Path(service.journal.path)
    assert found(examine(service, plugins), "journal").level is Severity.OK
    assert not path.exists()
    with Journal.open(path) as journal:
        journal.events.put(Event(scheduler="slurm", point="prolog", job="7"), 5.0)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE events SET data = ''")
        assert found(examine(service, plugins), "journal").level is Severity.OK, "no change"
        journal.events.list_unfinished()
    finding = found(examine(service, plugins), "journal")
    assert finding.level is Severity.NOTE
    assert "1 damaged rows set aside" in finding.what
    path.write_bytes(b"this is no journal" * 1000)
    finding = found(examine(service, plugins), "journal")
    assert (finding.level, "move it away" in finding.remedy) == (Severity.PROBLEM, True)


def test_metrics_that_go_nowhere(plugins: Plugins, service: Config, tmp_path: Path) -> None:
    assert not [each for each in examine(service, plugins) if each.subject == "metrics"]
    for name, level in (("x.prom", Severity.OK), ("missing/x.prom", Severity.NOTE)):
        config = replace(service, metrics=MetricsSection(textfile=str(tmp_path / name)))
        assert found(examine(config, plugins), "metrics").level is level


# -- cgroups -------------------------------------------------------------------------------------


def test_controllers_that_are_not_enabled(plugins: Plugins, tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0)])
    write_cgroup_mounts(tmp_path)
    for text, missing in (("cpuset cpu memory pids\n", 0), ("cpu\n", 2)):
        write_file(tmp_path, "sys/fs/cgroup/cgroup.subtree_control", text)
        findings = examine(Config(), plugins, tmp_path)
        notes = [f for f in findings if f.subject == "cgroups" and f.level is Severity.NOTE]
        assert len(notes) == missing


# -- the command ---------------------------------------------------------------------------------


def test_a_broken_configuration_is_a_finding(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[relocation]\nspeed = 3\n")
    status = main(["doctor", "--json", "--config", str(file)], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert status == 1
    assert (findings[0]["level"], "speed" in findings[0]["remedy"]) == ("problem", True)
    assert any(each["subject"] == "move_pages" for each in findings)


def test_people_see_every_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"], standalone_mode=False)
    shown = "".join(capsys.readouterr().out.split())
    main(["doctor", "--json"], standalone_mode=False)
    for each in json.loads(capsys.readouterr().out)["findings"]:
        assert "".join(each["remedy"].split()) in shown


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"subject", "level", "what", "remedy"} == set(findings[0])
