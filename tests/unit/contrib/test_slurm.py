"""The hooks of contrib/slurm exit with 0 in every case, and can be installed and removed."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[3] / "contrib/slurm"
HOOKS = ["prolog", "epilog", "task_prolog"]

RECORDS = """
import os, sys
with open({notes!r}, "a") as notes:
    print(*sys.argv[1:], os.environ.get("SLURM_JOB_ID"), sys.flags.isolated, sys.flags.no_site,
          repr(sys.stdin.read()), file=notes)
print("export X=1")
print("print out of a hook", file=sys.stderr)
"""


class Site:
    """A package schedhook that consists of hook/run.py, and the directory of its hooks."""

    def __init__(self, directory: Path) -> None:
        self.package = directory / "site/schedhook"
        self.package.mkdir(parents=True)
        (self.package / "__init__.py").touch()
        self.hook = self.package / "hook/run.py"
        self.hook.parent.mkdir()
        self.notes = directory / "notes"
        self.hook.write_text(RECORDS.format(notes=str(self.notes)))
        self.hooks = directory / "with a blank" / "hooks"

    def install(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, CONTRIB / "install", "--directory", self.hooks, *options],
            env={**os.environ, "PYTHONPATH": str(self.package.parent), **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def run(self, hook: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a hook as slurmd does: without PATH, in another directory, with the job's input."""
        return subprocess.run(
            [self.hooks / hook],
            env={"SLURM_JOB_ID": "7", **environ},
            cwd="/",
            input="the job's own input",
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def assert_silent_success(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- the hooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_passes_its_event_on_and_prints_nothing(site: Site, hook: str) -> None:
    """Slurm would execute what a TaskProlog prints, and the job would miss what it reads."""
    assert site.install().returncode == 0
    assert_silent_success(site.run(hook))
    assert site.noted() == [f"slurm {hook} --timeout 3 7 1 1 ''"]


def test_only_the_first_task_on_a_host_sends_the_event(site: Site) -> None:
    site.install()
    for local_id in ("0", "1", "2"):
        assert_silent_success(site.run("task_prolog", SLURM_LOCALID=local_id))
    assert len(site.noted()) == 1


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "broken",
    [
        "raise SystemExit(3)",
        "syntax error",
        "import os; os.kill(os.getpid(), 11)",
        "import nothing",
    ],
)
def test_a_broken_hook_exits_with_0(site: Site, hook: str, broken: str) -> None:
    site.install()
    site.hook.write_text(broken)
    assert_silent_success(site.run(hook))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_without_schedhook_python_or_timeout_exits_with_0(site: Site, hook: str) -> None:
    site.install()
    site.hook.unlink()
    assert_silent_success(site.run(hook))
    text = (site.hooks / hook).read_text()
    (site.hooks / hook).write_text(text.replace(sys.executable, "/nowhere/python3"))
    assert_silent_success(site.run(hook))
    (site.hooks / hook).write_text(re.sub(r"^\S*timeout ", "/nowhere/timeout ", text, flags=re.M))
    assert "/nowhere/timeout" in (site.hooks / hook).read_text()
    done = site.run(hook)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("ignores_sigterm", [False, True])
def test_a_hook_that_hangs_is_killed(site: Site, ignores_sigterm: bool) -> None:
    ignore = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" if ignores_sigterm else ""
    )
    site.install("--seconds", "0.5")
    site.hook.write_text(f"{ignore}\nimport time; time.sleep(60)")
    began = time.monotonic()
    assert_silent_success(site.run("prolog"))
    assert 0.4 < time.monotonic() - began < 10


# -- installation --------------------------------------------------------------------------------


def test_the_hooks_can_be_installed_twice_and_removed(site: Site) -> None:
    first = site.install()
    assert first.returncode == 0
    for hook, parameter in (
        ("prolog", "Prolog"),
        ("epilog", "Epilog"),
        ("task_prolog", "TaskProlog"),
    ):
        path = site.hooks / hook
        assert f'    {parameter}="{path}"\n' in first.stdout
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert "@" not in path.read_text()
    assert site.install().returncode == 0
    assert sorted(path.name for path in site.hooks.iterdir()) == sorted([*HOOKS, "job-migrate"])
    gone = site.install("--uninstall", SLURM_CONF="/nowhere")
    assert (gone.returncode, gone.stderr) == (0, "")
    assert not site.hooks.exists()
    assert site.install("--uninstall", SLURM_CONF="/nowhere").returncode == 0


def test_a_dry_run_changes_nothing(site: Site) -> None:
    done = site.install("--dry-run")
    assert done.returncode == 0
    assert f"would write {site.hooks / 'prolog'}" in done.stdout
    assert not site.hooks.exists()
    site.install()
    done = site.install("--uninstall", "--dry-run", SLURM_CONF="/nowhere")
    assert f"would remove {site.hooks / 'prolog'}" in done.stdout
    assert (site.hooks / "prolog").exists()


def test_hooks_that_slurm_still_uses_are_not_removed(site: Site, tmp_path: Path) -> None:
    """Without them slurmd would drain the host at the next job."""
    site.install()
    config = tmp_path / "slurm.conf"
    config.write_text(f"#Epilog={site.hooks}/epilog\nProlog={site.hooks}/prolog # ours\n")
    done = site.install("--uninstall", SLURM_CONF=str(config))
    assert done.returncode == 1
    assert "Prolog=" in done.stderr
    assert (site.hooks / "prolog").exists()
    config.write_text(f"#Prolog={site.hooks}/prolog\n")
    assert site.install("--uninstall", SLURM_CONF=str(config)).returncode == 0
    assert not site.hooks.exists()


def test_files_of_the_site_are_left_alone(site: Site) -> None:
    site.hooks.mkdir(parents=True)
    own = site.hooks / "prolog"
    own.write_text("#!/bin/sh\n# the site's own\n")
    done = site.install()
    assert done.returncode == 1
    assert "not schedhook's" in done.stderr
    done = site.install("--uninstall", SLURM_CONF="/nowhere")
    assert done.returncode == 0
    assert own.read_text() == "#!/bin/sh\n# the site's own\n"


def test_a_directory_that_other_users_can_change_is_warned_of(site: Site) -> None:
    site.package.parent.chmod(0o777)
    assert (
        f"warning: users other than root can change {site.package.parent}\n"
        in site.install().stderr
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--directory", "hooks"],
        ["--directory", "/hooks#1"],
        ["--seconds", "0"],
        ["--seconds", "900"],
    ],
)
def test_wrong_options_are_refused(site: Site, options: list[str]) -> None:
    assert site.install(*options).returncode == 2


def test_a_directory_that_cannot_be_created_is_reported_in_one_line(site: Site) -> None:
    site.hooks.parent.mkdir(parents=True, exist_ok=True)
    site.hooks.touch()
    done = site.install()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"{site.hooks}: File exists; choose a")
    assert "Traceback" not in done.stderr


def test_the_agent_gets_a_share_of_a_hooks_time(site: Site) -> None:
    """The rest is for the spool, in case the agent does not answer."""
    site.install("--seconds", "2")
    assert_silent_success(site.run("prolog"))
    assert site.noted() == ["slurm prolog --timeout 1.2 7 1 1 ''"]


def test_without_schedhook_nothing_is_installed(site: Site) -> None:
    site.hook.unlink()
    done = site.install()
    assert done.returncode == 1
    assert "run.py is missing" in done.stderr
    assert not site.hooks.exists()


def test_the_readme_names_each_file() -> None:
    text = (CONTRIB / "README.md").read_text()
    for name in (*HOOKS, "job-migrate", "install"):
        assert f"| `{name}` |" in text
        assert os.access(CONTRIB / name, os.X_OK)
