"""What pbs_mom does with a hook on an execution host, with a stand-in for PBS's interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EVENTS = {
    "execjob_begin": 64,
    "execjob_epilogue": 256,
    "execjob_end": 512,
    "execjob_launch": 2048,
    "exechost_periodic": 4096,
    "exechost_startup": 8192,
    "execjob_attach": 16384,
    "execjob_resize": 131072,
    "execjob_postsuspend": 524288,
    "execjob_preresume": 1048576,
}
FEW_ATTRIBUTES = ["id", "euser", "exec_vnode", "exec_host2", "schedselect", "session_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run of a hook ended, as pbs_mom sees it."""

    accepted: bool
    """The hook called accept, or ended without calling either."""
    timed_out: bool
    seconds: float
    job_log: tuple[tuple[str, str], ...] = ()
    """(job's id, line) of every pbs.logjobmsg."""
    host_log: tuple[str, ...] = ()
    errors: str = ""


@dataclass(kw_only=True)
class Mom:
    """An execution host's hook directory with one hook in it, as after qmgr's import."""

    directory: Path
    alarm: int = 30
    name: str = "schedhook"
    environ: Mapping[str, str] = field(default_factory=dict)
    set_up: bool = True
    """False where a (stand-in) qmgr has put the hook there."""

    def __post_init__(self) -> None:
        self.hooks = self.directory / "mom_priv/hooks"
        if self.set_up:
            self.hooks.mkdir(parents=True, exist_ok=True)
            self.set_alarm(self.alarm)

    def set_alarm(self, seconds: int) -> None:
        """PBS writes an attribute into the control file only where it is not the default, 30."""
        self.alarm = seconds
        text = f"hook_name={self.name}\nenabled=true\norder=500\n"
        text += f"alarm={seconds}\n" if seconds != 30 else ""
        (self.hooks / f"{self.name}.HK").write_text(text)

    def import_hook(self, script: Path) -> None:
        """qmgr -c "import hook NAME application/x-python default SCRIPT"."""
        shutil.copyfile(script, self.hooks / f"{self.name}.PY")

    def import_config(self, text: str) -> None:
        """qmgr -c "import hook NAME application/x-config default FILE"."""
        (self.hooks / f"{self.name}.CF").write_text(text)

    def remove_config(self) -> None:
        (self.hooks / f"{self.name}.CF").unlink(missing_ok=True)

    def run(self, event: str, **told: Any) -> Result:
        """Let the hook see an event; `told` is what the event has (job={...}, pid=…)."""
        told = {
            "type": EVENTS.get(event, 0),
            "hook_name": self.name,
            "requestor": "pbs_mom",
            "requestor_host": "n1",
            **told,
        }
        journal = self.directory / "journal"
        journal.write_bytes(b"")
        config = self.hooks / f"{self.name}.CF"
        environ = {"STANDIN_EVENT": json.dumps(told), "STANDIN_JOURNAL": str(journal)}
        if config.exists():
            environ["PBS_HOOK_CONFIG_FILE"] = str(config)
        words = [sys.executable, "-I", "-S", "-OO", str(HERE / "standin/run_hook.py")]
        words += [str(HERE / "standin"), str(self.hooks / f"{self.name}.PY")]
        begin = time.monotonic()
        with (self.directory / "errors").open("w+b") as errors:
            hook = subprocess.Popen(
                words,
                # Not even root can write there, as a full disk would have it.
                cwd="/sys",
                env={**environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
            timed_out = False
            try:
                status: int | None = hook.wait(self.alarm)
            except subprocess.TimeoutExpired:
                timed_out, status = True, None
            seconds = time.monotonic() - begin
            # pbs_mom kills the hook's process group in either case.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(hook.pid, signal.SIGKILL)
            hook.wait()
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        notes = [json.loads(line) for line in journal.read_text().splitlines()]
        kinds = [note[0] for note in notes]
        return Result(
            # pbs_python turns an exception into a rejection; falling off the end accepts.
            accepted=status == 0 and "reject" not in kinds,
            timed_out=timed_out,
            seconds=seconds,
            job_log=tuple((note[1], note[2]) for note in notes if note[0] == "logjobmsg"),
            host_log=tuple(note[1] for note in notes if note[0] == "logmsg"),
            errors=text,
        )
