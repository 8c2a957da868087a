"""Command line: ``python -m tests.vm --help``."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
import uuid
from pathlib import Path

from tests.vm import machine


def serve(options: argparse.Namespace) -> int:
    """Keep a guest up that runs what ``run`` sends, until DIR/stop appears or time is over."""
    directory: Path = options.directory.resolve()
    for name in ("in", "out"):
        shutil.rmtree(directory / name, ignore_errors=True)
        (directory / name).mkdir(parents=True)
    for name in ("ready", "stop"):
        (directory / name).unlink(missing_ok=True)
    shutil.copy(Path(__file__).with_name("serve.sh"), directory)
    with machine.running(
        str(directory / "serve.sh"),
        shared=directory,
        seconds=options.timeout,
        shape=options.shape,
        kernel=options.kernel,
        kvm=options.kvm,
        name=directory.name,
    ) as guest:
        if not machine.wait_until((directory / "ready").exists, guest, 300):
            print(f"the guest did not start, see {directory}/console.log", file=sys.stderr)
            return 1
        print(f"ready; stop it with: touch {directory}/stop", flush=True)
        guest.wait()
    return 0


def run(options: argparse.Namespace) -> int:
    """Run a command, or a script (one argument, or standard input), in DIR's guest."""
    directory: Path = options.directory.resolve()
    if not (directory / "ready").exists():
        print(f"no guest serves {directory}", file=sys.stderr)
        return 125
    match options.command:
        case []:
            script = sys.stdin.read()
        case [script]:
            pass
        case words:
            script = shlex.join(words)
    name = uuid.uuid4().hex[:8]
    bounded = f"exec timeout --kill-after=5 {options.timeout} bash -c {shlex.quote(script)}\n"
    new = directory / "in" / f"{name}.new"
    new.write_text(bounded)
    new.rename(new.with_suffix(".sh"))
    output, status = directory / "out" / f"{name}.out", directory / "out" / f"{name}.rc"
    printed = 0
    end = time.monotonic() + options.timeout + 30
    while True:
        done = status.exists()
        if output.exists():
            with output.open("rb") as stream:
                stream.seek(printed)
                data = stream.read()
            printed += len(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if done:
            return int(status.read_text())
        if time.monotonic() > end:
            print(f"no answer from the guest that serves {directory}", file=sys.stderr)
            return 124
        time.sleep(0.1)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.vm", description=machine.__doc__)
    commands = top.add_subparsers(required=True)

    guest = argparse.ArgumentParser(add_help=False)
    guest.add_argument("--kernel", type=Path, help="default: the newest /boot/vmlinuz-*")
    guest.add_argument(
        "--kvm", action=argparse.BooleanOptionalAction, help="default: if the processor has it"
    )
    guest.add_argument("--nodes", type=int, default=4)
    guest.add_argument("--mib-per-node", type=int, default=1024)

    one = commands.add_parser("serve", help=serve.__doc__, parents=[guest])
    one.add_argument("directory", type=Path, metavar="DIR", help="shared with the guest")
    one.add_argument("--timeout", type=float, default=14400, help="seconds (4 hours)")
    one.set_defaults(function=serve)

    one = commands.add_parser("run", help=run.__doc__)
    one.add_argument("--timeout", type=float, default=120, help="seconds")
    one.add_argument("directory", type=Path, metavar="DIR")
    one.add_argument("command", nargs="*", help="one word: a shell script")
    one.set_defaults(function=run)
    return top


def main() -> int:
    """Parse and do."""
    options = parser().parse_args()
    if "nodes" in options:
        options.shape = machine.Shape(nodes=options.nodes, mib_per_node=options.mib_per_node)
    try:
        return int(options.function(options))
    except machine.CannotBoot as error:
        print(f"cannot boot the virtual machine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
