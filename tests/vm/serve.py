"""A guest that stays up and runs the commands that it is sent, to save the time of a boot."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
import uuid
from pathlib import Path

from tests.vm import machine


def serve(directory: Path, *, seconds: float, setup: machine.Setup) -> int:
    """Keep a guest up until ``directory``/stop appears or the time limit is reached."""
    for name in ("in", "out"):
        shutil.rmtree(directory / name, ignore_errors=True)
        (directory / name).mkdir(parents=True)
    ready, stop = directory / "ready", directory / "stop"
    ready.unlink(missing_ok=True)
    stop.unlink(missing_ok=True)
    loop = Path(__file__).with_suffix(".sh").read_text()
    script = f"cd {shlex.quote(str(directory))}\n{loop}"
    with machine.running(script, shared=directory, seconds=seconds, setup=setup) as guest:
        if not machine.wait_for(ready, guest):
            print(f"the guest did not start, see {directory}/console.log", file=sys.stderr)
            return 1
        print(f"ready; stop it with: touch {stop}", flush=True)
        guest.wait()
        ready.unlink(missing_ok=True)
    return 0


def run(directory: Path, words: list[str], *, seconds: float) -> int:
    """Run a command, or a script (one word, or standard input), in the guest of ``directory``."""
    if not (directory / "ready").exists():
        print(f"no guest serves {directory}", file=sys.stderr)
        return 125
    match words:
        case []:
            script = sys.stdin.read()
        case [script]:
            pass
        case _:
            script = shlex.join(words)
    name = uuid.uuid4().hex[:8]
    output, status = directory / "out" / f"{name}.out", directory / "out" / f"{name}.rc"
    new = directory / "in" / f"{name}.new"
    quoted = shlex.quote(script)
    new.write_text(f"cd /\nexec timeout --kill-after=5 {seconds} bash -c {quoted}\n")
    new.rename(new.with_suffix(".sh"))
    position = 0
    end = time.monotonic() + seconds + 30
    while time.monotonic() < end:
        done = status.exists()
        position = machine.follow(output, position)
        if done:
            return int(status.read_text())
        time.sleep(0.1)
    print(f"no answer from the guest that serves {directory}", file=sys.stderr)
    return 124
