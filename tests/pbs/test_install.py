"""contrib/pbs/install and README.md: followed on a stand-in, they end in a working hook."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.pbs.mom import Mom

PROJECT = Path(__file__).resolve().parents[2]
CONTRIB = PROJECT / "contrib/pbs"
STANDIN = Path(__file__).with_name("standin")
README = (CONTRIB / "README.md").read_text()
JOB = {"id": "12.n1", "euser": "root"}


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A PBS server without hooks."""
    return tmp_path


def shell(server: Path, script: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{STANDIN}:{os.environ['PATH']}", "STANDIN_PBS": str(server)}
    return subprocess.run(
        ["/bin/sh", "-e", "-c", script],
        cwd=PROJECT,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
    )


def install(server: Path, options: str = "") -> subprocess.CompletedProcess[str]:
    return shell(server, f"contrib/pbs/install {options}")


def attributes(server: Path, name: str = "schedhook") -> dict[str, str]:
    record: dict[str, str] = json.loads((server / f"{name}.json").read_text())
    return record


def files(server: Path) -> dict[str, str]:
    return {
        str(path.relative_to(server)): path.read_text()
        for path in sorted(server.rglob("*"))
        if path.is_file()
    }


def configuration(tmp_path: Path, **changes: Any) -> Path:
    config = json.loads((CONTRIB / "schedhook.CF").read_text()) | changes
    path = tmp_path / "site.CF"
    path.write_text(json.dumps(config))
    return path


def test_the_hook_is_installed(server: Path) -> None:
    done = install(server)
    assert done.returncode == 0, done.stderr
    found = attributes(server)
    assert int(found["order"]) > 100, "it has to see what the cgroups hook did"
    assert found["enabled"] == "True"
    assert found["fail_action"] == "none", "no host goes offline for us"
    assert found["user"] == "pbsadmin"
    # Every limit fits into the part of the alarm that the hook uses.
    limits = json.loads((CONTRIB / "schedhook.CF").read_text())["seconds"]
    assert max(limits.values()) <= int(found["alarm"]) * 0.7


def test_the_events_are_those_that_the_hook_handles(server: Path) -> None:
    install(server)
    text = (CONTRIB / "schedhook.PY").read_text()
    handled = re.findall(r'"(exec(?:job|host)_\w+)"', text)
    assert sorted(attributes(server)["event"].split(",")) == sorted(set(handled))


@pytest.mark.parametrize("settings", ["", '[agent]\nsocket = "/run/s.sock"\nspool = "/s"\n'])
def test_the_program_is_the_one_that_starts_faster(
    server: Path, tmp_path: Path, settings: str
) -> None:
    home = tmp_path / "opt"
    script, python = home / "bin/schedhook", home / "bin/python"
    hook = home / "lib/python3.11/site-packages/schedhook/hook/run.py"
    for path in (script, python, hook):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = configuration(tmp_path, program=str(script))
    toml = tmp_path / "config.toml"
    toml.write_text(settings)
    done = install(server, f"--config '{path}' --settings '{toml}'")
    assert done.returncode == 0, done.stderr
    config = json.loads((server / "mom_priv/hooks/schedhook.CF").read_text())
    words = [str(python), "-I", "-S", str(hook)]
    more = ["--socket=/run/s.sock", "--spool=/s"] if settings else []
    assert config["program"] == words + more
    assert config["seconds"] == json.loads(path.read_text())["seconds"]


def test_it_can_be_installed_over_itself(server: Path) -> None:
    install(server)
    before = files(server)
    done = install(server)
    assert done.returncode == 0, done.stderr
    assert files(server) == before


def test_it_goes_without_a_trace(server: Path) -> None:
    install(server)
    for _ in range(2):
        done = install(server, "--uninstall")
        assert done.returncode == 0, done.stderr
        assert files(server) == {}


def test_a_server_that_cannot_be_asked_is_no_server_without_the_hook(
    server: Path, tmp_path: Path
) -> None:
    qmgr = tmp_path / "qmgr"
    qmgr.write_text("#!/bin/sh\necho 'qmgr: cannot connect to server' >&2; exit 1\n")
    qmgr.chmod(0o755)
    assert install(server, f"--uninstall --qmgr {qmgr}").returncode == 1


def test_a_dry_run_prints_what_a_run_does(server: Path, tmp_path: Path) -> None:
    for options in ("", "--uninstall"):
        printed = install(server, f"--dry-run {options}")
        assert printed.returncode == 0
        before = files(server)
        by_hand = tmp_path / f"by-hand{options}"
        shutil.copytree(server, by_hand, ignore=shutil.ignore_patterns("by-hand*"))
        assert shell(by_hand, printed.stdout).returncode == 0
        assert {name: text for name, text in files(server).items() if "by-hand" not in name} == {
            name: text for name, text in before.items() if "by-hand" not in name
        }
        install(server, options)
        mine = {name: text for name, text in files(server).items() if "by-hand" not in name}
        assert files(by_hand) == mine


def test_options(server: Path, tmp_path: Path) -> None:
    path = configuration(tmp_path, seconds={"default": 100})
    done = install(server, f"--name site_x --order 999 --freq 60 --alarm 200 --config '{path}'")
    assert done.returncode == 0, done.stderr
    found = attributes(server, "site_x")
    assert (found["order"], found["freq"], found["alarm"]) == ("999", "60", "200")
    assert (server / "mom_priv/hooks/site_x.CF").read_text() == path.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--order 100", "--order: from 101 to 1000"),
        ("--order 1001", "--order"),
        ("--freq 0", "--freq"),
        ("--name PBS_x", "--name"),
        ("--name 'a b'", "--name"),
        ("--alarm 5", "--alarm: the limits in"),
        ("--config /nonexistent", "/nonexistent: No such file"),
        ("--qmgr /nonexistent", "/nonexistent: No such file"),
    ],
)
def test_what_is_refused(server: Path, options: str, says: str) -> None:
    done = install(server, options)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert files(server) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"program": []}',
        '{"program": "bin/schedhook"}',
        '{"program": "/x", "seconds": 7}',
        '{"program": "/x", "seconds": {"default": "soon"}}',
        '{"program": "/x", "seconds": {"default": 0}}',
        '{"program": "/x", "seconds": {"default": 1e9}}',
    ],
)
def test_a_broken_configuration_is_not_installed(server: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    done = install(server, f"--config {path}")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (server / "schedhook.json").exists()


def test_half_an_installation_is_not_enabled(server: Path, tmp_path: Path) -> None:
    """Let qmgr fail at the second import."""
    failing = tmp_path / "qmgr"
    failing.write_text(
        f'#!/bin/sh\ncase "$2" in *x-config*) exit 1;; esac\nexec {STANDIN}/qmgr "$@"\n'
    )
    failing.chmod(0o755)
    done = install(server, f"--qmgr {failing}")
    assert done.returncode != 0
    assert "failed: " in done.stderr
    assert "x-config" in done.stderr
    assert attributes(server)["enabled"] == "False"


@pytest.mark.parametrize("heading", ["On the PBS server, as root", "Without `install`"])
def test_the_readme_ends_in_a_working_hook(server: Path, tmp_path: Path, heading: str) -> None:
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    done = shell(server, script)
    assert done.returncode == 0, done.stderr

    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments; echo all well\n')
    program.chmod(0o755)
    mom = Mom(directory=server, alarm=int(attributes(server)["alarm"]), set_up=False)
    config = json.loads((mom.hooks / "schedhook.CF").read_text())
    assert config["program"] == "/opt/schedhook/bin/schedhook"
    mom.import_config(json.dumps(config | {"program": str(program)}))
    result = mom.run("execjob_resize", job=JOB)
    assert result.accepted
    assert result.job_log == (("12.n1", "schedhook resize: all well"),)
    assert (tmp_path / "arguments").read_text().startswith("event pbs resize --wait")


def test_the_readme_takes_it_out_again(server: Path) -> None:
    section = README.split("## Removing it\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    install(server)
    assert shell(server, script).returncode == 0
    assert files(server) == {}


@pytest.mark.parametrize(
    "directive",
    [
        "create hook",
        "set hook schedhook event = execjob_begin,execjob_end",
        'set hook schedhook event = "execjob_start"',
        "set hook schedhook alarm = 0",
        "set hook schedhook order = 0",
        "set hook schedhook colour = red",
        "import hook schedhook application/x-python plain -",
        "import hook schedhook application/x-config default schedhook.CF",
        "delete hook other",
    ],
)
def test_the_stand_in_refuses_what_qmgr_refuses(server: Path, directive: str) -> None:
    """That the tests above can fail."""
    install(server)
    assert shell(server, f"qmgr -c '{directive}' < /dev/null").returncode != 0
