"""`schedhook setup`: what it places, shows and removes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from schedhook.cli.commands import setup
from schedhook.cli.setup import shipped as shipped_module
from schedhook.cli.setup import targets
from schedhook.hook import delivery
from schedhook.plugins.findings import Finding, ok, problem
from tests.unit.clikit import Run

STANDIN = Path(__file__).parents[3] / "pbs/standin"
FILES = ("system/schedhook-agent.service", "tmpfiles/schedhook.conf")


class Host:
    """The directories of systemd, and commands that note how they are called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name in ("systemctl", "systemd-tmpfiles"):
            path = self.bin / name
            path.write_text(f'#!/bin/sh\necho {name} "$@" >> {directory}/called\n')
            path.chmod(0o755)
        self.findings: list[Finding] = [ok("agent", "answers"), problem("shmem", "unrelated", "")]

    def called(self) -> list[str]:
        path = self.directory / "called"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def files(self) -> set[str]:
        base = self.directory
        every = [*(base / "system").rglob("*"), *(base / "tmpfiles").rglob("*")]
        return {str(path.relative_to(base)) for path in every if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    here = Host(tmp_path)
    monkeypatch.setattr(targets, "_SYSTEM", tmp_path / "system")
    monkeypatch.setattr(targets, "_TMPFILES", tmp_path / "tmpfiles")
    monkeypatch.setattr(targets, "_CONFIGURATION", tmp_path / "configuration")
    monkeypatch.setattr(setup, "examine", lambda *_: here.findings)
    monkeypatch.setenv("PATH", f"{here.bin}:{os.environ['PATH']}")
    return here


def test_undo_leaves_no_empty_directory_of_the_configuration(run: Run, host: Host) -> None:
    """Systemd has made it for the unit; what an administrator has written there stays."""
    directory = host.directory / "configuration"
    directory.mkdir()
    (directory / "config.toml").write_text("")
    assert run("setup", "systemd")[0] == 0
    assert run("setup", "systemd", "--undo")[0] == 0
    assert (directory / "config.toml").exists()
    (directory / "config.toml").unlink()
    assert f"remove {directory} if it is empty" in run("setup", "systemd", "--undo")[1]
    assert not directory.exists()


def test_the_agents_service(run: Run, host: Host) -> None:
    status, out, _ = run("setup", "systemd")
    assert status == 0
    assert "answers" in out
    assert "unrelated" not in out, "only what concerns the service is checked"
    assert host.files() == set(FILES)
    unit = (host.directory / FILES[0]).read_text()
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program = Path(start.removeprefix("ExecStart=").removesuffix(" agent"))
    assert program.is_absolute()
    assert program == Path(sys.executable).with_name("schedhook")
    assert "@" not in unit.replace("@system-service", "")
    assert host.called() == [
        f"systemd-tmpfiles --create {host.directory}/tmpfiles/schedhook.conf",
        "systemctl daemon-reload",
        "systemctl enable --now schedhook-agent",
    ]
    assert run("setup", "systemd", "--undo")[0] == 0
    assert host.files() == set()
    assert host.called() == [
        "systemctl disable --now schedhook-agent",
        "systemctl daemon-reload",
    ]


@pytest.mark.parametrize("target", ["systemd", "slurm", "metrics"])
@pytest.mark.parametrize("undo", [[], ["--undo"]])
def test_a_dry_run_changes_nothing(run: Run, host: Host, target: str, undo: list[str]) -> None:
    more = ["--directory", host.directory / "hooks"] if target == "slurm" else []
    status, _, _ = run("setup", target, "--dry-run", *undo, *more)
    assert (status, host.files(), host.called()) == (0, set(), [])
    assert not (host.directory / "hooks").exists()


def test_what_does_not_work_is_told_by_the_exit_status(run: Run, host: Host) -> None:
    host.findings = [problem("agent", "does not answer", "start it")]
    status, out, _ = run("setup", "systemd")
    assert status == 1
    assert "does not answer" in out


def test_another_programs_file_is_kept(run: Run, host: Host) -> None:
    path = host.directory / FILES[0]
    path.parent.mkdir()
    path.write_text("[Service]\nExecStart=/bin/true\n")
    status, _, err = run("setup", "systemd")
    assert status == 2
    assert "is not schedhook's: move it away first" in err
    assert host.files() == {FILES[0]}, "not even another file was placed"
    status, out, _ = run("setup", "systemd", "--undo")
    assert status == 0
    assert f"keep {path}, which is not schedhook's" in out
    assert host.called() == ["systemctl daemon-reload"], "it is not disabled either"
    assert "/bin/true" in path.read_text()


def test_undo_twice_and_after_a_set_up_that_was_interrupted(run: Run, host: Host) -> None:
    (host.bin / "systemctl").write_text(
        f"#!/bin/sh\ncase $1 in disable) cat {host.directory}/{FILES[0]};; esac\n"
    )
    assert run("setup", "systemd", "--undo")[0] == 0
    assert run("setup", "systemd")[0] == 0
    (host.directory / FILES[0]).unlink()
    assert run("setup", "systemd", "--undo")[0] == 0
    assert host.files() == set()


def test_undo_goes_on_after_a_failure_and_tells_it(run: Run, host: Host) -> None:
    assert run("setup", "systemd")[0] == 0
    (host.bin / "systemctl").write_text("#!/bin/sh\nexit 3\n")
    status, _, err = run("setup", "systemd", "--undo")
    assert (status, host.files()) == (1, set())
    assert err.count("\n") == 1
    assert "disable --now schedhook-agent: exit status 3; systemctl daemon-reload: exit" in err


@pytest.mark.parametrize("target", ["systemd", "slurm", "spank"])
def test_users_can_read_what_is_placed_whatever_the_umask(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Users' jobs run a TaskProlog, and srun loads the plug-in."""
    (host.bin / "cc").write_text(
        '#!/bin/sh\nfor out; do [ "$last" = -o ] && : > "$out"; last=$out; done'
    )
    (host.bin / "cc").chmod(0o755)
    placed = host.directory / "placed"
    monkeypatch.setattr(targets, "_TMPFILES", placed / "tmpfiles")
    more = ["--directory", placed / "by/admin"] if target != "systemd" else []
    before = os.umask(0o077)
    try:
        assert run("setup", target, *more)[0] == 0
        assert os.umask(0o077) == 0o077, "it was restored"
    finally:
        os.umask(before)
    found = [placed, *placed.rglob("*")]
    assert len(found) >= 3
    assert [path for path in found if path.stat().st_mode & 0o044 != 0o044] == []
    assert [path for path in found if path.is_dir() and path.stat().st_mode & 0o011 != 0o011] == []


def test_a_file_that_cannot_be_placed_is_named(run: Run, host: Host) -> None:
    (host.directory / "system").touch()
    status, _, err = run("setup", "systemd")
    path = host.directory / FILES[0]
    assert status == 1
    assert err == f"schedhook: {path}: File exists; check {path.parent} and the disk\n"


def test_a_command_that_fails_ends_it(run: Run, host: Host) -> None:
    (host.bin / "systemd-tmpfiles").write_text("#!/bin/sh\nexit 3\n")
    status, _, err = run("setup", "systemd")
    assert status == 1
    assert "exit status 3" in err
    assert host.called() == []


def test_slurms_option_is_built_on_the_host(run: Run, host: Host) -> None:
    cc = host.bin / "cc"
    where = host.directory / "hooks"
    cc.write_text(
        f'#!/bin/sh\necho cc "$@" >> {host.directory}/called\n'
        f'[ "$1" = -fsyntax-only ] || echo built > {where}/.schedhook.so.new\n'
    )
    cc.chmod(0o755)
    status, out, _ = run("setup", "spank", "--directory", where)
    assert status == 0
    assert f"\n    optional {where}/schedhook.so\n" in out
    check, build = host.called()
    assert check.startswith("cc -fsyntax-only ")
    assert build.startswith("cc -O2 -Wall -Wextra -shared -fPIC -o")
    assert build.endswith("contrib/slurm/spank/schedhook.c")
    assert [path.name for path in where.iterdir()] == ["schedhook.so"]
    run("setup", "spank", "--directory", where, "--undo", "--dry-run")
    assert (where / "schedhook.so").exists()
    cc.write_text("#!/bin/sh\nexit 1\n")  # nothing is compiled to undo it
    assert run("setup", "spank", "--directory", where, "--undo")[0] == 0
    assert not where.exists()
    assert run("setup", "spank", "--directory", where, "--undo")[0] == 0


def test_slurms_option_is_built_in_a_directory_that_slurm_can_name(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.directory)
    (host.bin / "cc").write_text(
        "#!/bin/sh\n[ $1 = -fsyntax-only ] || : > hooks/.schedhook.so.new\n"
    )
    (host.bin / "cc").chmod(0o755)
    status, out, _ = run("setup", "spank", "--directory", "hooks")
    assert (status, f"optional {host.directory}/hooks/schedhook.so" in out) == (0, True)
    (host.directory / "open").mkdir()
    (host.directory / "open").chmod(0o777)
    for where, why in (("two words", "only letters, digits"), ("open/x", "written by others")):
        status, out, err = run("setup", "spank", "--directory", where)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert why in err


def test_slurms_option_needs_slurms_headers(run: Run, host: Host) -> None:
    cc = host.bin / "cc"
    why = "schedhook.c:9:10: fatal error: slurm/spank.h: No such file or directory"
    cc.write_text(f"#!/bin/sh\necho '{why}' >&2; exit 1\n")
    cc.chmod(0o755)
    for more in ([], ["--dry-run"]):
        status, out, err = run("setup", "spank", "--directory", host.directory / "x", *more)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert why in err
        assert "libslurm-dev" in err
    assert not (host.directory / "x").exists()


def test_slurms_hooks(run: Run, host: Host) -> None:
    hooks = host.directory / "hooks"
    status, _, _ = run("setup", "slurm", "--directory", hooks)
    assert status == 0
    names = {"prolog", "epilog", "task_prolog", "job-migrate"}
    assert {path.name for path in hooks.iterdir()} == names
    text = (hooks / "prolog").read_text()
    assert f"{sys.executable} -I -S /" in text
    assert "/hook/run.py slurm prolog" in text
    assert run("setup", "slurm", "--directory", hooks, "--undo")[0] == 0
    assert not hooks.exists()


@pytest.mark.parametrize("own", [False, True])
def test_pbs_hook(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: bool
) -> None:
    monkeypatch.setenv("PATH", f"{STANDIN}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_PBS", str(host.directory / "pbs"))
    (host.directory / "pbs").mkdir()
    mine = tmp_path / "mine.CF"
    mine.write_text(json.dumps({"program": "/opt/else/schedhook", "seconds": {"default": 1}}))
    more = ["--hook-config", mine] if own else []
    assert run("setup", "pbs", *more)[0] == 0
    hooks = host.directory / "pbs/mom_priv/hooks"
    program = json.loads((hooks / "schedhook.CF").read_text())["program"]
    hook = str(Path(delivery.__file__).with_name("run.py"))
    assert program == ("/opt/else/schedhook" if own else [sys.executable, "-I", "-S", hook])
    assert run("setup", "pbs", "--undo", *more)[0] == 0
    assert list(hooks.iterdir()) == []


@pytest.mark.parametrize("undo", [[], ["--undo"]])
def test_manual_pages_and_completions(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, undo: list[str]
) -> None:
    shipped, share = tmp_path / "contrib", tmp_path / "share"
    (shipped / "man").mkdir(parents=True)
    (shipped / "man/schedhook.1").write_text("schedhook")
    for shell, (name, _) in targets.COMPLETIONS.items():
        (shipped / "completions" / shell).mkdir(parents=True)
        (shipped / "completions" / shell / name).write_text(f"schedhook for {shell}")
    monkeypatch.setattr(shipped_module, "CONTRIB", shipped)
    setup_shell = ("setup", "shell", "--directory", share)
    assert run(*setup_shell)[0] == 0
    if undo:
        assert run(*setup_shell, "--undo")[0] == 0
    placed = {
        "man/man1/schedhook.1": "schedhook",
        "bash-completion/completions/schedhook": "schedhook for bash",
        "zsh/site-functions/_schedhook": "schedhook for zsh",
        "fish/vendor_completions.d/schedhook.fish": "schedhook for fish",
    }
    found = {str(each.relative_to(share)): each for each in share.rglob("*") if each.is_file()}
    assert {name: path.read_text() for name, path in found.items()} == ({} if undo else placed)


def test_manual_pages_that_a_clone_has_not_made(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shipped_module, "CONTRIB", tmp_path)
    status, _, err = run("setup", "shell", "--directory", tmp_path / "share")
    assert (status, err.count("\n")) == (2, 1)
    assert "is missing: install schedhook again; in a clone, run `make man`" in err


def test_metrics_that_are_not_configured(run: Run, host: Host) -> None:
    host.findings = [ok("metrics", "off")]
    status, out, _ = run("setup", "metrics")
    assert (status, host.files(), host.called()) == (0, set(), [])
    assert 'textfile = "/var/lib' in out
    for word in ("schedhook.json", "schedhook.rules.yml"):
        (path,) = [each for each in out.split() if each.endswith(word)]
        assert Path(path).exists()


def test_metrics_that_are_configured(run: Run, host: Host, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[metrics]\ntextfile = "/var/lib/text/x.prom"\nsocket = "/run/m.sock"\ngroup = "prom"\n'
    )
    assert run("setup", "metrics", "--config", config)[0] == 0
    (name,) = host.files()
    assert name == "system/schedhook-agent.service.d/metrics.conf"
    text = (host.directory / name).read_text()
    assert text.endswith("[Service]\nReadWritePaths=/var/lib/text\nSupplementaryGroups=prom\n")
    restarted = ["systemctl daemon-reload", "systemctl try-restart schedhook-agent"]
    assert host.called() == restarted
    config.write_text("")  # it is undone although metrics are not configured any more
    assert run("setup", "metrics", "--config", config, "--undo")[0] == 0
    assert host.files() == set()
    assert not (host.directory / name).parent.exists()
    assert host.called() == restarted


@pytest.mark.parametrize(
    "words", [("systemd", "--directory", "/x"), ("slurm", "--hook-config", "/x"), ("lsf",)]
)
def test_wrong_usage(run: Run, host: Host, words: tuple[str, ...]) -> None:
    assert run("setup", *words)[0] == 2
    assert host.files() == set()
