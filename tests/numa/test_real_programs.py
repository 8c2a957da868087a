"""Programs of Debian under load are moved back and forth, and check their data afterwards."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.numa import programs
from tests.numa.jobs import MIB, cgroup, mounted_disk, numa_stat, until

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
DISK = 160
"""MiB."""
PATIENCE = 120
"""Seconds."""


class Program(ABC):
    """A program in a cgroup of its own, with its files in a directory of its own."""

    LEAST = 16
    """MiB that it has at least."""

    def __init__(self, group: Path, directory: Path) -> None:
        self.group, self.directory = group, directory
        self.children: list[subprocess.Popen[str]] = []

    @abstractmethod
    def start(self) -> None:
        """Start it and its load, which goes on until `check`."""

    @abstractmethod
    def check(self) -> None:
        """End the load, and compare the data with what they must be."""

    def popen(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command outside of the cgroup."""
        child = subprocess.Popen(
            list(map(str, words)),
            text=True,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        self.children.append(child)
        return child

    def join(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the cgroup."""
        join = f'echo $$ > {self.group}/cgroup.procs && exec "$@"'
        return self.popen("/bin/sh", "-c", join, "sh", *words, **options)

    def ask(self, *words: object, **options: Any) -> str:
        """Run a command outside of the cgroup and return what it prints."""
        done = subprocess.run(
            list(map(str, words)),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=self.directory,
            **options,
        )
        assert not done.returncode, done
        return done.stdout.strip()

    def stop(self) -> None:
        for child in self.children:
            child.kill()
        for child in self.children:
            child.wait()


class Redis(Program):
    """A store in memory; a child of fork(2) saves it while others write to it."""

    KEYS, EACH = 16_000, 2000
    """Keys, and the bytes of each value."""

    def start(self) -> None:
        self.socket = self.directory / "socket"
        self.join(
            *("redis-server", "--port", 0, "--unixsocket", self.socket, "--save", ""),
            *("--enable-debug-command", "yes", "--dir", self.directory),
        )
        until(self.socket.exists, PATIENCE)
        self.say("debug", "populate", self.KEYS, "key", self.EACH)
        self.digest = self.say("debug", "digest")
        self.load = self.popen(
            *("redis-benchmark", "-s", self.socket, "--dbnum", 1, "-c", 4, "-q"),
            *("-n", 100_000_000, "incr", "count"),
        )
        self.say("bgsave")

    def check(self) -> None:
        until(lambda: "rdb_bgsave_in_progress:0" in self.say("info", "persistence"), PATIENCE)
        assert "rdb_last_bgsave_status:ok" in self.say("info", "persistence")
        self.ask("redis-check-rdb", "dump.rdb")
        self.load.terminate()
        self.load.wait(PATIENCE)
        until(lambda: self.count() == self.calls())  # the last requests may still be on their way
        assert self.count()
        self.say("-n", 1, "flushdb")
        assert self.say("debug", "digest") == self.digest

    def say(self, *words: object) -> str:
        return self.ask("redis-cli", "-s", self.socket, *words)

    def count(self) -> int:
        return int(self.say("-n", 1, "get", "count"))

    def calls(self) -> int:
        calls = self.say("info", "commandstats").partition("cmdstat_incr:calls=")[2]
        return int(calls.partition(",")[0])


class PostgreSql(Program):
    """A database whose processes share its buffers; the tables of the load must agree."""

    SUMS = (
        "select (select sum(abalance) from pgbench_accounts),"
        " (select sum(bbalance) from pgbench_branches),"
        " (select sum(tbalance) from pgbench_tellers),"
        " (select sum(delta) from pgbench_history), (select count(*) from pgbench_history)"
    )

    def start(self) -> None:
        self.data = shutil.copytree(programs.database(), self.directory / "data")
        self.ask("chown", "-R", programs.NOBODY, self.data)
        self.data.chmod(0o700)
        user = ("--reuid", programs.NOBODY, "--regid", programs.NOBODY, "--clear-groups")
        self.server = self.join(
            *("setpriv", *user, programs.postgresql("postgres"), "-D", self.data),
            *("-k", self.directory, "-c", "listen_addresses="),
            *("-c", "shared_buffers=64MB", "-c", "fsync=off"),
        )
        ready = [programs.postgresql("pg_isready"), "-q", "-h", self.directory]
        until(lambda: not subprocess.run(ready, check=False).returncode, PATIENCE)
        self.balances()  # reads all of it, into buffers which no process then maps
        self.load = self.popen(
            *(programs.postgresql("pgbench"), "-h", self.directory, "-U", "postgres"),
            *("-n", "-c", 4, "-R", 20, "-T", 3600, "postgres"),
        )

    def check(self) -> None:
        self.load.send_signal(signal.SIGINT)
        self.load.wait(PATIENCE)
        *sums, transactions = self.balances()
        assert transactions
        assert len(set(sums)) == 1, sums
        self.server.send_signal(signal.SIGINT)
        assert not self.server.wait(PATIENCE)
        self.ask(programs.postgresql("pg_checksums"), "--check", "-D", self.data)

    def balances(self) -> list[int]:
        words = ("-h", self.directory, "-U", "postgres", "-At", "-c", self.SUMS, "postgres")
        found = self.ask(programs.postgresql("psql"), *words).split("|")
        return [int(each or 0) for each in found]


class StressNg(Program):
    """A tester of memory, which compares what it reads with what it wrote."""

    def start(self) -> None:
        self.load = self.join(
            *("stress-ng", "--vm", 1, "--vm-bytes", "48M", "--vm-keep", "--verify"),
            *("--timeout", "3600s", "--temp-path", self.directory),
        )
        until(lambda: sum(charged(self.group).values()) > self.LEAST * MIB, PATIENCE)

    def check(self) -> None:
        self.load.send_signal(signal.SIGINT)
        assert not self.load.wait(PATIENCE)


def charged(group: Path) -> dict[int, int]:
    """Return bytes of anonymous and shared memory per node, as the kernel charges them."""
    return numa_stat(group, "anon", "shmem")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for any user, on a disk: the cgroup is charged for files in memory."""
    with tempfile.TemporaryDirectory(dir="/run") as place:
        Path(place).chmod(0o755)
        with mounted_disk(Path(place), DISK) as disk:
            disk.chmod(0o777)
            yield disk


@contextmanager
def running(program: type[Program], directory: Path) -> Iterator[Program]:
    """Run the program on node 0."""
    with ExitStack() as stack:
        group = stack.enter_context(cgroup("program"))
        (group / "cpuset.cpus").write_text("0")
        one = program(group, directory)
        stack.callback(one.stop)
        one.start()
        yield one


@pytest.mark.dirty
@pytest.mark.short(3)
@pytest.mark.parametrize("strategies", [STRATEGIES, STRATEGIES[::-1]], ids=" and ".join)
@pytest.mark.parametrize("program", [Redis, PostgreSql, StressNg])
def test_a_program_under_load_keeps_its_data(
    run: Any, directory: Path, program: type[Program], strategies: list[str]
) -> None:
    """By one strategy it goes, and by the other it comes back."""
    with running(program, directory) as one:
        for strategy, old, new in zip(strategies, (0, 2), (2, 0), strict=True):
            before = charged(one.group)
            assert sum(before.values()) > one.LEAST * MIB
            (one.group / "cpuset.cpus").write_text(str(new))
            words = ("--cgroup", one.group, "--from", old, "--to", new, "--strategy", strategy)
            status, report = run("relocate", *words)
            after = charged(one.group)
            assert status in (0, 3), report["notes"]
            assert report["bytes_moved"]  # the rest may have come to the new node by itself
            assert after.get(old, 0) <= report["bytes_left"] + sum(after.values()) / 100
        one.check()
