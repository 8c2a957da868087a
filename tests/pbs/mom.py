"""What pbs_mom does with a hook on an execution host, with a stand-in for PBS's interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedhook.backends.native.descriptors import pidfd_open

HERE = Path(__file__).resolve().parent
EVENTS = {
    "execjob_begin": 64,
    "execjob_end": 512,
    "execjob_launch": 2048,
    "exechost_periodic": 4096,
    "exechost_startup": 8192,
    "execjob_attach": 16384,
    "execjob_resize": 131072,
    "execjob_postsuspend": 524288,
    "execjob_preresume": 1048576,
}
PBS_EXEC = os.environ.get("SCHEDHOOK_PBS_EXEC")


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
    within: Sequence[str] = ()
    """Words in front of the interpreter's, as of nsenter(1)."""
    set_up: bool = True
    """False if a stand-in for qmgr has installed the hook."""

    def __post_init__(self) -> None:
        self.hooks = self.directory / "mom_priv/hooks"
        if self.set_up:
            self.hooks.mkdir(parents=True, exist_ok=True)
            self.set_alarm(self.alarm)

    def set_alarm(self, seconds: int) -> None:
        """Set the alarm; PBS omits an attribute with its default, 30, from the control file."""
        self.alarm = seconds
        text = f"hook_name={self.name}\nenabled=true\norder=500\n"
        text += f"alarm={seconds}\n" if seconds != 30 else ""
        (self.hooks / f"{self.name}.HK").write_text(text)

    def import_hook(self, script: Path) -> None:
        """Do as `qmgr -c "import hook NAME application/x-python default SCRIPT"`."""
        shutil.copyfile(script, self.hooks / f"{self.name}.PY")

    def import_config(self, text: str) -> None:
        """Do as `qmgr -c "import hook NAME application/x-config default FILE"`."""
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
        interpreter = (PbsPython if PBS_EXEC else StandIn)(self, event, told)
        config = self.hooks / f"{self.name}.CF"
        environ = {"PBS_HOOK_CONFIG_FILE": str(config)} if config.exists() else {}
        begin = time.monotonic()
        with (self.directory / "errors").open("w+b") as errors:
            hook = subprocess.Popen(
                [*self.within, *interpreter.words],
                # Not even root can write there, as a full disk would have it.
                cwd="/sys",
                env={**environ, **interpreter.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
            # Popen.wait(timeout) looks only now and then, and the seconds are measured.
            pidfd = pidfd_open(hook.pid)
            timed_out = not select.select([pidfd], [], [], self.alarm)[0]
            seconds = time.monotonic() - begin
            os.close(pidfd)
            # pbs_mom kills the hook's process group in either case.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(hook.pid, signal.SIGKILL)
            hook.wait()
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        job_log, host_log = interpreter.logs()
        return Result(
            accepted=hook.returncode == 0 and interpreter.accepted(),
            timed_out=timed_out,
            seconds=seconds,
            job_log=job_log,
            host_log=host_log,
            errors=text,
        )


Logs = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


class StandIn:
    """Python with the module `pbs` of standin/."""

    def __init__(self, mom: Mom, _event: str, told: Mapping[str, Any]) -> None:
        self._journal = mom.directory / "journal"
        self._journal.write_bytes(b"")
        given = mom.directory / "event"
        given.write_text(json.dumps(told))
        self.environ = {"STANDIN_EVENT": str(given), "STANDIN_JOURNAL": str(self._journal)}
        words = [sys.executable, "-I", "-S", "-OO", HERE / "standin/run_hook.py"]
        words += [HERE / "standin", mom.hooks / f"{mom.name}.PY"]
        self.words = [str(word) for word in words]

    def _notes(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._journal.read_text().splitlines()]

    def accepted(self) -> bool:
        """An exception is a bad exit status; falling off the end accepts."""
        return all(note[0] != "reject" for note in self._notes())

    def logs(self) -> Logs:
        notes = self._notes()
        return (
            tuple((note[1], note[2]) for note in notes if note[0] == "logjobmsg"),
            tuple(note[1] for note in notes if note[0] == "logmsg"),
        )


class PbsPython:
    """PBS's own interpreter, with files as pbs_mom writes them (mom_hook_func.c)."""

    def __init__(self, mom: Mom, event: str, told: Mapping[str, Any]) -> None:
        given, self._answer, self._log = (mom.directory / name for name in ("in", "out", "log"))
        for path in (self._answer, self._log):
            path.unlink(missing_ok=True)
        given.write_text("".join(f"{line}\n" for line in input_lines(mom, event, told)))
        words = [f"{PBS_EXEC}/bin/pbs_python", "--hook", "-i", given, "-o", self._answer]
        words += ["-l", self._log, "-e", "15", mom.hooks / f"{mom.name}.PY"]
        self.words = [str(word) for word in words]
        names = ("PBS_CONF_FILE", "LD_LIBRARY_PATH")
        self.environ = {name: os.environ[name] for name in names if name in os.environ}

    def accepted(self) -> bool:
        return self._answer.exists() and "pbs.event().accept=True" in self._answer.read_text()

    def logs(self) -> Logs:
        """Lines are `time;code;pbs_python;class;object;text`."""
        text = self._log.read_text() if self._log.exists() else ""
        lines = [line.split(";", 5)[3:] for line in text.splitlines()]
        return (
            tuple((name, said) for kind, name, said in lines if kind == "Job"),
            tuple(said for kind, name, said in lines if (kind, name) == ("Hook", "pbs_python")),
        )


def input_lines(mom: Mom, event: str, told: Mapping[str, Any]) -> Iterator[str]:
    """What pbs_mom tells pbs_python of an event."""
    if "job" in told:
        yield from job_lines("pbs.event().job", {"id": told["job"].get("id"), **told["job"]})
    for job, values in told.get("job_list", {}).items():
        rest = {key: value for key, value in values.items() if key != "id"}
        yield from job_lines(f'pbs.event().job_list["{job}"]', rest)
    for vnode in told.get("vnode_list", {}):
        yield f'pbs.event().vnode_list["{vnode}"].sharing=default_shared'
    for key in ("progname", "pid"):
        if key in told:
            yield f"pbs.event().{key}={told[key]}"
    for number, word in enumerate(told.get("argv", ())):
        yield f"pbs.event().argv[{number}]={word}"
    yield "pbs.get_local_nodename()=n1"
    yield f"pbs.event().type={event}"
    yield f"pbs.event().hook_name={mom.name}"
    yield "pbs.event().hook_type=site"
    yield "pbs.event().requestor=pbs_mom"
    yield "pbs.event().requestor_host=n1"
    yield "pbs.event().user=pbsadmin"
    yield f"pbs.event().alarm={mom.alarm}"


def job_lines(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    values = dict(values)
    if values.pop("primary", True):
        yield f"{name}._msmom=True"
    for key, value in values.items():
        if value is not None:
            yield f"{name}.{key}={value}"
