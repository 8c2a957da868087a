"""Follow the guides for Slurm, line by line, on a fresh Debian 13: slurm_guide.py STAGE …, as root.

    install ROOT WHEEL    in a fresh root directory, from the wheel
    use                   in a guest that has booted that root with systemd and four nodes

Needs nothing but the Python of that root. Slurm and systemd are Debian's own, started by its units.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ADDRESS = "10.99.0.1"
USER = "alice"
CONFIGURATION = Path("/etc/slurm/slurm.conf")
SECONDS = 300
CARDS = Path("/sys/class/net")
MIB = 1 << 20
JOB_MIB = 64

JOB = f"""#!/usr/bin/python3
import hashlib, os, sys, time
data = bytearray(os.urandom({MIB})) * {JOB_MIB}
before = hashlib.sha256(data).digest()
open("ready", "w").write(str(os.getpid()))
while not os.path.exists("stop"):
    time.sleep(0.2)
sys.exit(hashlib.sha256(data).digest() != before)
"""


def commands(page: str, heading: str) -> list[str]:
    """Return the lines of code of a section: those in fences, or indented by four blanks.

    Its subsections are not part of it: they tell of what is optional.
    """
    text = (PROJECT / page).read_text()
    section = re.split(r"\n###? ", text.partition(f"\n## {heading}\n")[2])[0]
    fenced = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = "".join(fenced).splitlines() or re.findall(r"^    (\S.*)", section, re.MULTILINE)
    assert lines, f"{page}: no code below {heading!r}"
    return lines


def run(line: str, *, directory: Path = Path("/root"), fails: bool = False) -> str:
    """Run a line of shell, print it and what it prints; raise AssertionError if it fails."""
    print(f"# {line}", flush=True)
    status, output = quietly(line, directory)
    print(output, flush=True)
    assert (status != 0) == fails, f"{line}: status {status}"
    return output


def quietly(line: str, directory: Path = Path("/root")) -> tuple[int, str]:
    """Run a line of shell; return its status and what it prints."""
    done = subprocess.run(
        ["bash", "-uc", line], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds; raise AssertionError after a time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.2)


# -- stages ---------------------------------------------------------------------------------------


def install(root: Path, wheel: Path) -> None:
    """Install the wheel in the root as README.md tells it, and make a user."""
    shutil.copy(wheel, root / "root")
    lines = [line for line in commands("README.md", "Install on a cluster") if "/opt/" in line]
    script = "\n".join(["set -eu", "mount -t proc proc /proc", "cd /root", *lines])
    script += f"\nuseradd --create-home {USER}\n"
    subprocess.run(["unshare", "--mount", "chroot", root, "bash", "-c", script], check=True)


def use() -> None:
    """Set schedhook up, move a job, and undo the set-up, as the guides tell it."""
    start_slurm()
    os.environ["PATH"] += ":/opt/schedhook/bin"
    *setups, prolog, epilog, task_prolog = commands("contrib/slurm/README.md", "Install")
    for line in setups:
        run(line)
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("\n".join([before, prolog, epilog, task_prolog, ""]))
    run("scontrol reconfigure")

    job, pid = start_job()
    follow_check(job, pid)
    end_job(job)

    undo = commands("contrib/slurm/README.md", "Undo")
    refused = run(next(line for line in undo if "setup slurm" in line), fails=True)
    assert "slurm.conf still has" in refused, refused
    CONFIGURATION.write_text(before)
    run("scontrol reconfigure")
    for line in undo:
        run(line)
    assert_nothing_is_left()
    end_job(start_job()[0])
    wait_for(is_idle, "the host to be idle")


def start_slurm() -> None:
    """Configure Slurm as a site does, and start its units."""
    card = next(path.name for path in sorted(CARDS.iterdir()) if path.name != "lo")
    run(f"ip address add {ADDRESS}/24 dev {card} && ip link set {card} up")
    name, cpus = socket.gethostname(), os.cpu_count()
    hosts = Path("/etc/hosts")
    hosts.write_text(f"{ADDRESS} {name}\n{hosts.read_text()}")
    CONFIGURATION.write_text(
        f"ClusterName=guide\nSlurmctldHost={name}\nSlurmUser=slurm\n"
        "StateSaveLocation=/var/lib/slurm/slurmctld\nSlurmdSpoolDir=/var/lib/slurm/slurmd\n"
        "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup,task/affinity\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\nDefMemPerCPU=200\n"
        "MessageTimeout=60\n"
        f"NodeName={name} CPUs={cpus} Sockets={cpus} CoresPerSocket=1 RealMemory=3000\n"
        "PartitionName=all Nodes=ALL Default=YES MaxTime=30\n"
    )
    CONFIGURATION.with_name("cgroup.conf").write_text("ConstrainCores=yes\n")
    run("systemctl restart munge slurmctld slurmd")
    wait_for(is_idle, "the host to be idle")


def is_idle() -> bool:
    return quietly("sinfo --noheader --format=%T") == (0, "idle\n")


def start_job() -> tuple[str, int]:
    """Start the user's job on processor 0; return its number and its process."""
    home = Path("/home", USER)
    for name in ("ready", "stop"):
        (home / name).unlink(missing_ok=True)
    (home / "job.py").write_text(JOB)
    (home / "job.py").chmod(0o755)
    batch = f"sbatch --parsable --ntasks=1 --wrap 'srun --cpu-bind=map_cpu:0 {home}/job.py'"
    job = run(f"runuser -u {USER} -- {batch}", directory=home).strip()
    ready = home / "ready"
    wait_for(lambda: ready.exists() and ready.read_text(), f"job {job} to fill its memory")
    return job, int(ready.read_text())


def follow_check(job: str, pid: int) -> None:
    """Run the lines of the guide's section about checking, for this job."""
    assert mib_on(pid, 0) >= JOB_MIB
    for line in commands("docs/how-to/slurm.md", "Check that it works"):
        run(line.replace("4711", job))
    assert mib_on(pid, 2) >= JOB_MIB, Path(f"/proc/{pid}/numa_maps").read_text()
    assert os.sched_getaffinity(pid) == {2}
    assert "complete" in run(f"schedhook history {job}")


def mib_on(pid: int, node: int) -> float:
    """Return how much of the process's memory is on a node, by its small pages."""
    text = Path(f"/proc/{pid}/numa_maps").read_text()
    return sum(map(int, re.findall(rf" N{node}=(\d+)", text))) * 4096 / MIB


def end_job(job: str) -> None:
    """Let the job check its memory and end."""
    Path("/home", USER, "stop").touch()

    def ended() -> bool:
        state = quietly(f"scontrol show job {job}")[1].partition("JobState=")[2].split()[0]
        assert state in {"RUNNING", "COMPLETING", "COMPLETED"}, state
        return state == "COMPLETED"

    wait_for(ended, f"the end of job {job}")


def assert_nothing_is_left() -> None:
    """Assert that no file is left but the records, which the set-up says it keeps."""
    files = [path for place in ("/etc", "/usr/local") for path in Path(place).rglob("*schedhook*")]
    left = [str(path) for path in files if not path.is_dir()]
    assert not left, left


def main() -> None:
    match sys.argv[1:]:
        case ["install", root, wheel]:
            install(Path(root), Path(wheel))
        case ["use"]:
            use()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
