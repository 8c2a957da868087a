"""Run every command of an installed schedhook once: python -P tour.py [PROGRAM WORD…]

Needs nothing but that schedhook, so that it runs wherever schedhook is installed: with the lowest
versions of what it depends on, with a distribution's packages, from a package of its own. Without
a PROGRAM the one of this Python is run. Prints a line for each step that failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from schedhook.cli.main import COMMANDS
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process

MIB = 1 << 20
START = 0x10000000
SECONDS = 60


class Tour:
    """The program, and a directory with a made-up host, a configuration and a journal."""

    def __init__(self, program: list[str], directory: Path) -> None:
        self.program = program
        self.host = directory / "host"
        write_host(self.host, nodes=[FakeNode(number=n, cpus=str(n)) for n in range(4)])
        area = FakeArea(start=START, size=12 * MIB, pages={0: 2048, 1: 1024})
        write_process(self.host, 100, areas=[area], cpus="0-3", nodes="0-3")
        self.directory = directory
        config = directory / "config.toml"
        config.write_text(
            f'[journal]\npath = "{directory}/state/journal.db"\n'
            f'[agent]\nsocket = "{directory}/agent.sock"\nspool = "{directory}/spool"\n'
            f'[metrics]\ntextfile = "{directory}/schedhook.prom"\ninterval_s = 1\n'
        )
        kept = ("HOME", "LANG", "PATH")
        self.environ = {name: os.environ[name] for name in kept if name in os.environ}
        self.environ |= {"SCHEDHOOK_CONFIG": str(config), "COLUMNS": "80"}

    def run(self, *words: object, given: str = "", status: int = 0, **environ: str) -> str:
        """Return what the command prints; raise AssertionError if its status is another."""
        done = subprocess.run(
            [*self.program, *map(str, words)], input=given, capture_output=True, text=True,
            timeout=SECONDS, env=self.environ | environ, cwd=self.directory, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"status {done.returncode}: {done.stderr.strip()}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def simulated(self, command: str, *words: object) -> str:
        """Return what a command prints of the made-up host's process."""
        host = ("--root", self.host, "--pid", 100)
        return self.run(command, *host, *words)

    # -- steps ----------------------------------------------------------------------------------

    def version(self) -> None:
        assert self.run("--version").startswith("schedhook")

    def plugins(self) -> None:
        listed = json.loads(self.run("plugins", "--json"))["plugins"]
        found = {(each["role"], each["name"]) for each in listed}
        assert {("scheduler", "slurm"), ("scheduler", "pbs"), ("backend", "native")} <= found
        self.run("plugins")

    def plan(self) -> None:
        assert "nodes" in self.simulated("plan", "--map", "0:2", "--backend", "simulated")

    def relocation(self) -> None:
        words = ("relocate", "--map", "0:2", "--backend", "simulated")
        report = json.loads(self.simulated(*words, "--json"))
        assert (report["outcome"], report["bytes_moved"]) == ("complete", 8 * MIB), report
        assert "complete" in self.simulated(*words, "--svg", "picture.svg", "--html", "page.html")
        assert "<svg" in (self.directory / "picture.svg").read_text()

    def footprint(self) -> None:
        shown = json.loads(self.simulated("show", "--json"))
        assert sum(shown["residency"].values()) == 12 * MIB, shown
        self.simulated("show")
        own = json.loads(self.run("show", "--pid", os.getpid(), "--json"))
        assert sum(own["residency"].values()) > 0

    def profile(self) -> None:
        """Show that node 1 uses a page of node 0."""
        line = f"app 100/100 [001] 1.5: 1 page-faults: {START:x}\n"
        (self.directory / "log").write_text(5 * line)
        plan = json.loads(self.simulated("profile", "log", "--backend", "simulated", "--json"))
        assert plan["plan"]["moves"] == [{"from": 0, "to": 1, "bytes": 4096}], plan

    def doctor(self) -> None:
        self.run("doctor", "--root", self.host, "--json", status=1)

    def completion(self) -> None:
        self.environ["_SCHEDHOOK_COMPLETE"] = "bash_source"
        try:
            assert "complete" in self.run()
        finally:
            del self.environ["_SCHEDHOOK_COMPLETE"]

    def agent(self) -> None:
        """Handle a hook's event, write the metrics, and end at SIGTERM."""
        agent = subprocess.Popen([*self.program, "agent"], env=self.environ, stderr=subprocess.PIPE)
        try:
            textfile = self.directory / "schedhook.prom"
            wait_for(lambda: (self.directory / "agent.sock").exists() and textfile.exists())
            self.run("event", "slurm", "prolog", "--wait", SLURM_JOB_ID="7", SLURM_JOB_UID="0")
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(SECONDS) == 0
        finally:
            agent.kill()
            agent.wait()
        assert "schedhook_agent_up 1.0" in textfile.read_text()
        assert "7" in self.run("history")
        assert "schedhook_agent_up 0.0" in self.run("metrics")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.05)


def steps(tour: Tour) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each step by its name."""
    for name in ("", *COMMANDS):
        yield f"{name} --help".strip(), lambda name=name: tour.run(*name.split(), "--help")
    for each in (
        tour.version, tour.plugins, tour.plan, tour.relocation, tour.footprint, tour.profile,
        tour.doctor, tour.completion, tour.agent,
    ):  # fmt: skip
        yield each.__name__, each


def main(program: list[str]) -> int:
    """Take each step and print what failed; return the exit status."""
    failed = passed = 0
    with tempfile.TemporaryDirectory(prefix="schedhook-tour-") as name:
        Path(name).chmod(0o700)
        tour = Tour(program or [sys.executable, "-P", "-m", "schedhook.cli.main"], Path(name))
        for what, step in steps(tour):
            try:
                step()
                passed += 1
            except Exception as error:  # noqa: BLE001 - the other steps still tell something
                failed += 1
                print(f"{what}: {error!r}", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
