"""A real Slurm on one virtual machine: munged, slurmctld, and a slurmd for each of its hosts.

All its files are in one directory (/run/slurm-test). The hosts `n1`, `n2` … are slurmds of one
kernel, which Debian's build allows; it then names its scopes after the host. To try it by hand:

    python -m tests.slurm.cluster start
    SLURM_CONF=/run/slurm-test/slurm.conf sinfo
    python -m tests.slurm.cluster stop
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ADDRESS = "10.99.0.1"
CGROUPS = Path("/sys/fs/cgroup")
HAS_VERSION_2 = (CGROUPS / "cgroup.controllers").exists()
NAMESPACES = "TESTS_IN_NAMESPACES"
"""The environment has this where /etc, /run and the network are not the host's own."""
USER, USER_ID = "alice", 2001
DIRECTORY = Path("/run/slurm-test")
PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "busybox": "busybox-static",
}
SLOW = 3
"""How many times as long as on a host of its own everything may take in an emulated guest, beside
another one."""
ASK_AGAIN = 60
"""Seconds after which a job is cancelled once more."""
_LEVELS = {"3": "info", "4": "verbose", "5": "debug"}
"""Levels of a daemon's log, by their numbers."""
_FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"})


class CannotRun(Exception):
    """No cluster can run here; the message names what is missing and how to get it."""


class Unexpected(Exception):
    """The cluster did not do what was expected; the message tells what it did."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Slurm cluster: its files, its hosts and its settings."""

    directory: Path = DIRECTORY
    hosts: tuple[str, ...] = ("n1",)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Lines of slurm.conf, in addition to the usual ones or instead of them."""
    version_1: Path | None = None
    """Where the hierarchies of cgroups of version 1 are mounted, if Slurm is to use those."""

    @property
    def conf(self) -> Path:
        return self.directory / "slurm.conf"

    @property
    def work(self) -> Path:
        """A directory that belongs to the user, where jobs start and write."""
        return self.directory / "work"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every Slurm command."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    @cached_property
    def version(self) -> tuple[int, int]:
        """Return Slurm's version, such as (24, 11)."""
        year, month = re.findall(r"\d+", self.command("scontrol", "--version"))[:2]
        return int(year), int(month)

    # -- the daemons ---------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return all(self._alive(name) for name in self._daemons)

    @property
    def _daemons(self) -> tuple[str, ...]:
        return ("munged", "slurmctld", *(f"slurmd-{host}" for host in self.hosts))

    def _pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.directory / "pid" / name).read_text())
        return None

    def _alive(self, name: str) -> bool:
        pid = self._pid(name)
        return pid is not None and Path(f"/proc/{pid}").exists()

    def start(self, seconds: float = 120) -> None:
        """Start the daemons and wait until every host is idle.

        Raise CannotRun if this machine cannot run them, Unexpected if one does not come up.
        """
        require_machine()
        prepare_machine()
        shutil.rmtree(self.directory, ignore_errors=True)
        for name in ("", "state", "spool", "log", "pid", "munge", "work"):
            (self.directory / name).mkdir(mode=0o755)
        shutil.chown(self.directory / "state", "slurm")
        shutil.chown(self.directory / "log", "slurm")
        shutil.chown(self.work, USER, USER)
        self.configure()
        self._start_munged()
        # slurmctld drops root early, so its files must already belong to it.
        (self.directory / "pid/slurmctld").touch()
        shutil.chown(self.directory / "pid/slurmctld", "slurm")
        self._daemon("slurmctld", ["slurmctld", "-c", "-f", str(self.conf)])
        for host in self.hosts:
            self.start_slurmd(host)
        wait_until(self._is_idle, seconds, "every host to be idle", self.diagnosis)

    def _is_idle(self) -> bool:
        """Return whether every host is idle; not while the controller does not answer yet."""
        with contextlib.suppress(Unexpected):
            return all(self.host_state(host) == "IDLE" for host in self.hosts)
        return False

    def start_slurmd(self, host: str) -> None:
        """Start a host's slurmd in a cgroup of its own, as systemd would."""
        command = f"exec slurmd -N {host} -f {self.conf}"
        if HAS_VERSION_2:
            unit = CGROUPS / f"system.slice/{host}_slurmd.service"
            unit.mkdir(parents=True, exist_ok=True)
            command = f"echo $$ > {unit}/cgroup.procs && {command}"
        self._daemon(f"slurmd-{host}", ["bash", "-c", command])

    def stop_slurmd(self, host: str) -> None:
        """End a host's slurmd; its jobs go on running under their slurmstepds."""
        self._end(f"slurmd-{host}")

    def _daemon(self, name: str, command: Sequence[str]) -> None:
        with (self.directory / "log" / f"{name}.start").open("wb") as log:
            done = subprocess.run(
                command,
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
                check=False,
            )
        if done.returncode:
            raise Unexpected(f"{name} ended with {done.returncode}\n{self.diagnosis()}")

    def _start_munged(self) -> None:
        directory = self.directory / "munge"
        key = directory / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        options = {
            "socket": self.directory / "munge.socket",
            "key-file": key,
            "log-file": directory / "log",
            "pid-file": self.directory / "pid/munged",
            "seed-file": directory / "seed",
        }
        self._daemon("munged", ["munged", *(f"--{name}={path}" for name, path in options.items())])

    def stop(self) -> None:
        """End every job and every daemon."""
        if self._alive("slurmctld"):
            with contextlib.suppress(Unexpected, subprocess.TimeoutExpired):
                self.cancel_all()
        for name in reversed(self._daemons):
            self._end(name)

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        if pid is None or not self._alive(name):
            return
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(Unexpected):
            wait_until(lambda: not self._alive(name), 20, f"{name} to end")
        with contextlib.suppress(ProcessLookupError):  # it has ended at last
            os.kill(pid, signal.SIGKILL)

    # -- configuration -------------------------------------------------------------------------

    def configure(self, **settings: str) -> None:
        """Write slurm.conf with these lines too; running daemons do not read it again."""
        values = {
            "ClusterName": "test",
            "SlurmctldHost": f"{socket.gethostname()}({ADDRESS})",
            "SlurmUser": "slurm",
            "AuthInfo": f"socket={self.directory}/munge.socket",
            "StateSaveLocation": f"{self.directory}/state",
            "SlurmdSpoolDir": f"{self.directory}/spool/%n",
            "SlurmctldPidFile": f"{self.directory}/pid/slurmctld",
            "SlurmdPidFile": f"{self.directory}/pid/slurmd-%n",
            "SlurmctldLogFile": f"{self.directory}/log/slurmctld",
            "SlurmdLogFile": f"{self.directory}/log/slurmd-%n",
            "SlurmdDebug": "verbose",
            "ProctrackType": "proctrack/cgroup",
            "TaskPlugin": "task/cgroup,task/affinity",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "DefMemPerCPU": "200",
            "SchedulerType": "sched/builtin",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "JobRequeue": "0",
            "ReturnToService": "2",
            "KillWait": "5",
            # An emulated machine on which a compiler runs too is slow to answer.
            "MessageTimeout": "60",
            "TCPTimeout": "30",
            "SlurmdTimeout": "600",
            "BatchStartTimeout": "120",
            "PrologEpilogTimeout": "120",
            **self.settings,
            **settings,
        }
        cpus = os.cpu_count()
        lines = [f"{name}={value}" for name, value in values.items()]
        lines += [
            f"NodeName={host} NodeHostname={socket.gethostname()} NodeAddr={ADDRESS}"
            f" Port={17001 + number} CPUs={cpus} Sockets={cpus} CoresPerSocket=1"
            " ThreadsPerCore=1 RealMemory=3000"
            for number, host in enumerate(self.hosts)
        ]
        # Slurm takes hosts in this order, and gives a processor to one job only.
        lines.append(f"PartitionName=all Nodes={','.join(self.hosts)} Default=YES MaxTime=30")
        self.conf.write_text("\n".join(lines) + "\n")
        plugin = "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
        if self.version_1:
            plugin = f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={self.version_1}\n"
        self.conf.with_name("cgroup.conf").write_text(
            f"{plugin}ConstrainCores=yes\nConstrainRAMSpace=no\nConstrainDevices=no\n"
        )

    def reconfigure(self, **settings: str) -> None:
        """Configure the running daemons with the cluster's lines and these, and no others.

        The controller passes it on to each slurmd, which takes it some time later: that shows in
        the level of its log, which is another one each time.
        """
        new = min(_LEVELS.keys() - self._log_levels())
        self.configure(SlurmdDebug=_LEVELS[new], **settings)
        self.command("scontrol", "reconfigure")

        def is_taken() -> bool:
            with contextlib.suppress(Unexpected):  # a slurmd of 23.11 or later starts itself anew
                return self._log_levels() == {new}
            return False

        wait_until(is_taken, 60, "every slurmd to take the configuration", self.diagnosis)

    def _log_levels(self) -> set[str]:
        show = ("scontrol", "show", "slurmd")  # that of this host, if no variable says otherwise
        texts = [self.command("env", f"SLURMD_NODENAME={host}", *show) for host in self.hosts]
        return {level for text in texts for level in re.findall(r"Slurmd Debug\s*=\s*(\d)", text)}

    def restart_controller(self, **settings: str) -> None:
        """Restart slurmctld with the cluster's lines and these; it keeps its jobs."""
        self.configure(**settings)
        self._end("slurmctld")
        self._daemon("slurmctld", ["slurmctld", "-f", str(self.conf)])
        wait_until(self._is_idle, 120, "every host to be idle", self.diagnosis)

    # -- jobs ----------------------------------------------------------------------------------

    def command(
        self, *words: str, user: str | None = None, data: str | None = None, seconds: float = 90
    ) -> str:
        """Run a Slurm command as root or as `user` and return its output.

        Raise Unexpected if it fails.
        """
        account = pwd.getpwnam(user) if user else None
        done = subprocess.run(
            words,
            env=self.environment,
            cwd=self.work,
            input=data,
            capture_output=True,
            text=True,
            timeout=seconds * SLOW,
            check=False,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        if done.returncode:
            raise Unexpected(f"{words} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, script: str, *options: str, user: str = USER) -> int:
        """Submit a batch script (without its first line) with options of sbatch; return the job."""
        text = "#!/bin/bash\n" + script
        return int(
            self.command("sbatch", "--parsable", "--output=%j.out", *options, user=user, data=text)
        )

    def output(self, job: int) -> str:
        """Return what the job has printed so far."""
        path = self.work / f"{job}.out"
        return path.read_text() if path.exists() else ""

    def job_state(self, job: int) -> str:
        """Return `PENDING`, `RUNNING`, …"""
        return self.job_field(job, "JobState")

    def job_field(self, job: int, name: str) -> str:
        """Return the value of one `Name=value` of `scontrol show job`."""
        return _field(self.command("scontrol", "-d", "-o", "show", "job", str(job)), name)

    def wait_for_state(self, job: int, *states: str, seconds: float = 90) -> str:
        """Wait until the job is in one of these states and return it.

        Raise Unexpected if it ends in another.
        """

        def there() -> bool:
            state = self.job_state(job)
            if state in _FINAL and state not in states:
                raise Unexpected(f"job {job} is {state}, not {states}\n{self.diagnosis(job)}")
            return state in states

        wait_until(there, seconds, f"job {job} to be {states}", lambda: self.diagnosis(job))
        return self.job_state(job)

    def run(self, script: str, *options: str, seconds: float = 120) -> str:
        """Submit a script, wait until it has completed and return what it printed."""
        job = self.submit(script, *options)
        self.wait_for_state(job, "COMPLETED", seconds=seconds)
        return self.output(job)

    def cancel(self, *jobs: int) -> None:
        """End these jobs and wait until their cgroups are gone.

        Slurm can miss a job that it is just starting, such as an array's next element: ask again.
        Twice a job kept its cgroups for minutes after its last slurmstepd had said that it was
        done: after a minute empty ones are removed, and others named in the failure.
        """
        left = [self.job_cgroup(job, host) for job in jobs for host in self.hosts]
        asked_again = 0.0

        def gone() -> bool:
            nonlocal asked_again
            if time.monotonic() >= asked_again:
                for path in left if asked_again else ():
                    _remove_empty(path)
                asked_again = time.monotonic() + ASK_AGAIN
                for job in jobs:
                    with contextlib.suppress(Unexpected):
                        self.command("scancel", str(job))
            return not any(path.exists() for path in left)

        def what_is_left() -> str:
            procs = [file for path in left for file in path.rglob("cgroup.procs")]
            return "\n".join([f"{file}: {file.read_text().split()}" for file in procs])

        wait_until(gone, 180, f"the end of jobs {jobs}", lambda: what_is_left() + self.diagnosis())

    def cancel_all(self) -> None:
        """End every job."""
        listed = self.command("squeue", "--noheader", "--format=%A").split()
        self.cancel(*{int(job) for job in listed})

    # -- what it runs on -----------------------------------------------------------------------

    def host_state(self, host: str = "n1") -> str:
        """Return `IDLE`, `MIXED+DRAIN`, … as `scontrol show node` writes it."""
        return _field(self.command("scontrol", "-o", "show", "node", host), "State")

    def is_drained(self, host: str = "n1") -> bool:
        return "DRAIN" in self.host_state(host) or "DOWN" in self.host_state(host)

    def undrain(self, host: str = "n1") -> None:
        """Return a drained host to service, for the next test."""
        self.command("scontrol", "update", f"NodeName={host}", "State=RESUME")

    def job_cgroup(self, job: int, host: str = "n1") -> Path:
        """Return the path of the job's cgroup on a host, whether it exists or not."""
        if self.version_1:
            return self.version_1 / f"cpuset/slurm_{host}/uid_{USER_ID}/job_{job}"
        return CGROUPS / f"system.slice/{host}_slurmstepd.scope/job_{job}"

    def step_pids(self, job: int, step: str = "0", host: str = "n1") -> list[int]:
        """Return the step's processes that already run the user's program."""
        base = self.job_cgroup(job, host) / f"step_{step}/user"
        found = []
        for path in base.glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in path.read_text().split()]
        return sorted(pid for pid in found if _comm(pid) not in ("", "slurmstepd"))

    def wait_for_step(
        self, job: int, step: str = "0", tasks: int = 1, host: str = "n1", seconds: float = 90
    ) -> list[int]:
        """Wait until a step has as many processes as it has tasks, each running its program."""
        wait_until(
            lambda: len(self.step_pids(job, step, host)) >= tasks,
            seconds,
            f"{tasks} processes of {job}.{step} on {host}",
            lambda: self.diagnosis(job),
        )
        return self.step_pids(job, step, host)

    def log(self, name: str) -> str:
        """Return the log of a daemon: `slurmctld`, `slurmd-n1`, …"""
        path = self.directory / "log" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def diagnosis(self, job: int | None = None) -> str:
        """Return the ends of all logs, and the job's output, for the message of a failure."""
        parts = [f"--- output of {job}\n{self.output(job)}"] if job else []
        for path in sorted((self.directory / "log").iterdir()):
            parts.append(f"--- {path.name}\n" + "\n".join(self.log(path.name).splitlines()[-15:]))
        return "\n".join(parts)


def _remove_empty(cgroup: Path) -> None:
    """Remove the cgroup and those below it if no process is in any of them."""
    with contextlib.suppress(OSError):  # Slurm may remove them at the same time
        if "populated 0" in (cgroup / "cgroup.events").read_text():
            below = [path for path in cgroup.rglob("*") if path.is_dir()]
            for path in (*sorted(below, reverse=True), cgroup):
                path.rmdir()


def require_machine() -> None:
    """Raise CannotRun where it would change a host, or if a package is missing."""
    is_private = "virtme" in Path("/proc/cmdline").read_text() or NAMESPACES in os.environ
    if not is_private or os.geteuid() != 0:
        raise CannotRun("a test cluster runs only in the virtual machine; see tests/vm")
    for program, package in PROGRAMS.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise CannotRun(f"{program} is missing: run apt-get install {package}")


def prepare_machine() -> None:
    """Give the guest an address, a user, and the cgroups that systemd would make."""
    for cgroup in (CGROUPS, CGROUPS / "system.slice") if HAS_VERSION_2 else ():
        cgroup.mkdir(exist_ok=True)
        there = (cgroup / "cgroup.controllers").read_text().split()  # less those of version 1
        wanted = [f"+{name}" for name in ("cpuset", "cpu", "memory", "pids") if name in there]
        (cgroup / "cgroup.subtree_control").write_text(" ".join(wanted))
    # glibc's resolver resolves nothing on a host that has only the loopback interface.
    card = min(name for _, name in socket.if_nameindex() if name != "lo")
    words = ["busybox", "ifconfig", card, ADDRESS, "netmask", "255.255.255.0", "up"]
    subprocess.run(words, check=True)
    _add_line("/etc/hosts", f"{ADDRESS} {socket.gethostname()}")
    _add_line("/etc/group", f"{USER}:x:{USER_ID}:")
    _add_line("/etc/passwd", f"{USER}:x:{USER_ID}:{USER_ID}::{DIRECTORY}/work:/bin/bash")


def _add_line(path: str, line: str) -> None:
    lines = Path(path).read_text().splitlines()
    if line not in lines:
        Path(path).write_text(
            "\n".join([line, *lines] if "hosts" in path else [*lines, line]) + "\n"
        )


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    diagnosis: Callable[[], str] = lambda: "",
) -> None:
    """Poll until the condition holds; raise Unexpected, which names `what`, after the time.

    `seconds` are those of a host that nobody else uses.
    """
    seconds *= SLOW
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Unexpected(f"waited {seconds} s for {what}\n{diagnosis()}")
        time.sleep(0.1)


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", text)
    if not found:
        raise Unexpected(f"no {name} in {text!r}")
    return found[1]


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Run the cluster for the block; one that runs already is used, and left running."""
    if cluster.is_running:
        yield cluster
        return
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def main() -> int:
    """Start or stop a cluster by hand in the guest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--hosts", type=int, default=1)
    options = parser.parse_args()
    cluster = Cluster(hosts=tuple(f"n{number + 1}" for number in range(options.hosts)))
    try:
        (cluster.start if options.action == "start" else cluster.stop)()
    except (CannotRun, Unexpected) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
