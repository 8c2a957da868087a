"""The alerts and the dashboard, in a real Prometheus that scrapes a real agent."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agentkit import wait_for

CONTRIB = Path(__file__).parents[3] / "contrib"
RULES = CONTRIB / "prometheus/schedhook.rules.yml"
DASHBOARD = CONTRIB / "grafana/schedhook.json"


def promtool(*words: object) -> str:
    done = subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_alerts_are_valid_and_fire_for_what_they_are_about(tmp_path: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).with_name("rules.test.yml"), tmp_path)
    promtool("test", "rules", tmp_path / "rules.test.yml")


def test_every_alert_is_tested() -> None:
    names = re.findall(r"alert: (\w+)", RULES.read_text())
    tests = Path(__file__).with_name("rules.test.yml").read_text()
    assert names
    assert set(names) == set(re.findall(r"alertname: (\w+)", tests))


def expressions() -> list[str]:
    """Return the dashboard's queries, with its variables filled in."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    return [each.replace("$host", ".*").replace("$__rate_interval", "1m") for each in queries]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Prometheus:
    """A server that scrapes one target every second and has the alerts loaded."""

    def __init__(self, directory: Path, target: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{RULES}]\n"
            "scrape_configs:\n"
            f"  - {{job_name: hosts, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        promtool("check", "config", config)
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--web.listen-address={self.address}",
                f"--storage.tsdb.path={directory / 'data'}", "--log.level=error",
            ]
        )  # fmt: skip

    def get(self, path: str, **parameters: str) -> Any:
        """Return `data` of an answer of the HTTP API; None while the server starts."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def query(self, expression: str) -> list[Any]:
        answer = self.get("query", query=expression)
        return answer["result"] if answer else []


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a Prometheus that has scraped an agent with one relocation in its journal."""
    directory = tmp_path_factory.mktemp("prometheus")
    target = f"127.0.0.1:{free_port()}"
    (directory / "config.toml").write_text(
        f'[journal]\npath = "{directory}/state/journal.db"\n'
        f'[agent]\nsocket = "{directory}/agent.sock"\nspool = "{directory}/spool"\n'
        f'[metrics]\nlisten = "{target}"\n'
    )
    environ = os.environ | {"SCHEDHOOK_CONFIG": str(directory / "config.toml")}
    agent = subprocess.Popen(
        [sys.executable, "-P", "-m", "schedhook.cli.main", "agent"], env=environ
    )
    wait_for((directory / "agent.sock").exists)
    server = Prometheus(directory, target)
    try:
        wait_for(lambda: bool(server.query("schedhook_build_info")))
        time.sleep(2)  # rates need two samples
        yield server
    finally:
        for process in (server.process, agent):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_prometheus_keeps_its_labels_and_ours(prometheus: Prometheus) -> None:
    (up,) = prometheus.query("schedhook_agent_up")
    assert up["value"][1] == "1"
    assert up["metric"]["job"] == "hosts"
    everything = prometheus.query('{__name__=~"schedhook_.*"}')
    assert len(everything) > 5
    assert not [each for each in everything if "exported_job" in each["metric"]]


def test_prometheus_knows_the_units(prometheus: Prometheus) -> None:
    """It has asked for OpenMetrics, which has them."""
    found = prometheus.get("metadata")
    assert found["schedhook_node_free_bytes"][0]["unit"] == "bytes"


@pytest.mark.parametrize("expression", expressions())
def test_each_query_of_the_dashboard_is_answered(prometheus: Prometheus, expression: str) -> None:
    assert prometheus.get("query", query=expression) is not None


def test_every_alert_is_loaded_and_healthy(prometheus: Prometheus) -> None:
    (group,) = prometheus.get("rules")["groups"]
    wait_for(lambda: prometheus.get("rules")["groups"][0]["rules"][0]["health"] != "unknown")
    (group,) = prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert len(group["rules"]) == RULES.read_text().count("alert:")
