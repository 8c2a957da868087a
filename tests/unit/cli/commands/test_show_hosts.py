"""`schedhook show --hosts` over a program that stands in for ssh; the command is the real one."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from schedhook.cli import cluster
from tests.unit.clikit import Run, on_terminal
from tests.unit.screenkit import add_job, make_host
from tests.unit.sshkit import use_ssh, write_ssh


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """Let ssh reach hosts n1 and n2, each with the made-up host of that name; n2 has job 90, too.

    n3 does not answer, and n4 has a program that prints something else.
    """
    for host in ("n1", "n2"):
        make_host(tmp_path / host)
    add_job(tmp_path / "n2", 90, {9000: (0, {3: 1200})})
    path = use_ssh(tmp_path)
    write_ssh(
        path,
        'case $host in\n  n3) echo "ssh: connect to host n3 port 22: no route" >&2; exit 255 ;;\n'
        '  n4) echo "{\\"version\\": 2}"; exit 0 ;;\nesac\n'
        f'exec sh -c "$1 --root {tmp_path}/$host"',
    )
    return path


@pytest.mark.usefixtures("ssh")
def test_the_worst_jobs_of_all_hosts_come_first(run: Run) -> None:
    status, out, err = run("show", "--hosts", "n[1-2]", columns=120)
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if " slurm " in line]
    assert [row[0:3] for row in rows[:3]] == [
        ["n2", "slurm", "90"],
        ["n1", "slurm", "72"],
        ["n2", "slurm", "72"],
    ]
    assert "7 jobs on 2 of 2 hosts" in out
    assert "▒▒ off-node" in out
    assert "to bring it home on n2, n1: schedhook relocate --all --home" in out


@pytest.mark.usefixtures("ssh")
def test_sort_top_and_user_are_for_all_jobs_together(run: Run) -> None:
    words = ["show", "--hosts", "n1,n2", "--json"]
    shown = json.loads(run(*words, "--sort", "memory", "--top", 3)[1])
    assert [(job["host"], job["job"]) for job in shown["jobs"]] == [
        ("n1", "71"),
        ("n2", "71"),
        ("n1", "72"),
    ]
    assert shown["jobs_left_out"] == 4
    assert json.loads(run(*words, "--user", "4711")[1])["jobs"] == []
    assert shown["hosts"][0]["nodes"]["3"]["total"] == 64 << 30


@pytest.mark.usefixtures("ssh")
def test_each_host_that_fails_is_one_line(run: Run) -> None:
    status, out, err = run("show", "--hosts", "n[1-4]", "--json")
    assert status == 3
    assert sorted(err.splitlines()) == [
        "schedhook: n3: ssh: connect to host n3 port 22: no route",
        "schedhook: n4: its answer has no jobs; is schedhook another version?",
    ]
    shown = json.loads(out)
    assert {job["host"] for job in shown["jobs"]} == {"n1", "n2"}
    assert [each["failure"] is None for each in shown["hosts"]] == [True, True, False, False]
    assert run("show", "--hosts", "n[3-4]")[0] == 1
    status, out, err = run("show", "--hosts", "n[1,3]")
    assert (status, err.count("\n")) == (3, 1)
    assert "3 jobs on 1 of 2 hosts" in out


@pytest.mark.parametrize(
    "jobs", ["[7]", '[{"job": "7", "bytes": 5}]', '[{"job": "7", "kinds": 1}]']
)
def test_a_host_with_another_version_does_not_hide_the_others(
    run: Run, ssh: Path, tmp_path: Path, jobs: str
) -> None:
    answer = f'{{"jobs": {jobs}, "jobs_left_out": 0, "problems": [], "nodes": {{}}}}'
    write_ssh(
        ssh,
        f"[ $host = n1 ] && echo '{answer}' && exit\nexec sh -c \"$1 --root {tmp_path}/$host\"",
    )
    status, out, err = run("show", "--hosts", "n[1-2]")
    assert (status, err.count("\n")) == (3, 1)
    assert "n1: its answer has no jobs; is schedhook another version?" in err
    assert "on 1 of 2 hosts" in out


def test_what_a_hosts_shell_says_at_first_is_not_the_answer(
    run: Run, ssh: Path, tmp_path: Path
) -> None:
    hello = "echo 'Welcome to the cluster'; echo '{'; echo\n"
    write_ssh(ssh, f'{hello}exec sh -c "$1 --root {tmp_path}/$host"; echo')
    status, out, err = run("show", "--hosts", "n[1-2]", "--json")
    assert (status, err) == (0, "")
    assert len(json.loads(out)["jobs"]) == 7


@pytest.mark.usefixtures("ssh")
def test_what_a_host_says_of_a_wrong_word_is_handed_on(run: Run) -> None:
    status, _, err = run("show", "--hosts", "n1", "--scheduler", "slrum")
    assert status == 1
    assert err.startswith("schedhook: n1: no scheduler is called 'slrum'")


def test_a_host_that_is_silent_is_given_up(
    run: Run, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_SECONDS", 0.3)
    write_ssh(ssh, "exec sleep 60")
    status, _, err = run("show", "--hosts", "n1")
    assert (status, err) == (1, "schedhook: n1: no answer within 0.3 s\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_ssh_behind(
    run: Run, ssh: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write_ssh(ssh, f"echo $$ >> {tmp_path}/pids; exec sleep 60")

    def pids() -> list[int]:
        path = tmp_path / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def stop() -> None:
        while len(pids()) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    status, out, err = run("show", "--hosts", "n[1-2]")
    thread.join()
    assert (status, out) == (1, "")
    assert "schedhook: interrupted" in err
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids()):
        assert time.monotonic() < end, "they run on"
        time.sleep(0.01)


def test_what_has_come_shows_while_a_slower_host_is_waited_for(
    ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other host answers only once the terminal has the first answer."""
    go = tmp_path / "go"
    write_ssh(
        ssh,
        f"if [ $host = n2 ]; then while [ ! -e {go} ]; do sleep 0.05; done; fi\n"
        f'exec sh -c "$1 --root {tmp_path}/$host"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def answer(written: bytes) -> None:
        if b"waiting for 1 of 2 hosts" in written and b"slurm 72" in written:
            go.touch()

    status, written = on_terminal("show", "--hosts", "n[1-2]", seen=answer)
    assert status == 0
    assert "7 jobs on 2 of 2 hosts" in written.decode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hosts", "n[1-"], "is not a list of hosts"),
        (["--hosts", ""], "names no host"),
        (["--hosts", "n[1-9999999]"], "names 9999999 hosts, more than"),
        (["--hosts=-oProxyCommand=id"], "begins with -"),
        (["--hosts", "n1", "--job", "7"], "--hosts goes with"),
        (["--hosts", "n1", "--watch"], "--hosts goes with"),
    ],
)
def test_wrong_usage(run: Run, words: list[str], said: str) -> None:
    status, out, err = run("show", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_without_clustershell_the_remedy_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ClusterShell.Task", None)
    status, _, err = run("show", "--hosts", "n1")
    assert status == 1
    assert "pip install 'schedhook[cluster]', or run `schedhook show` on each host" in err
