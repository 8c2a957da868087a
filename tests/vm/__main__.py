"""Command line: ``python -m tests.vm --help``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.vm import machine, matrix, once, roots, serve, tiers


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m tests.vm", description=machine.__doc__)
    commands = top.add_subparsers(required=True, dest="name")

    guest = argparse.ArgumentParser(add_help=False)
    guest.add_argument(
        "--root", type=Path, default=roots.HOST_ROOT, help="default: the host's own files"
    )
    guest.add_argument("--systemd", action="store_true", help="boot with systemd")
    guest.add_argument("--kernel", type=Path, help="default: that of the root's Debian, below boot")
    guest.add_argument(
        "--kvm", action=argparse.BooleanOptionalAction, help="default: if the processor has it"
    )
    guest.add_argument("--nodes", type=int, default=4)
    guest.add_argument("--mib-per-node", type=int, default=1024)
    guest.add_argument("--gib-pages", type=int, default=0, help="huge pages, on nodes 0 and 1")
    guest.add_argument("--memory-only", type=int, default=0, help="more nodes, without processors")

    one = commands.add_parser("serve", help=serve.serve.__doc__, parents=[guest])
    one.add_argument("directory", type=Path, metavar="DIR", help="shared with the guest")
    one.add_argument("--timeout", type=float, default=14400, help="seconds (4 hours)")

    one = commands.add_parser("run", help=serve.run.__doc__)
    one.add_argument("directory", type=Path, metavar="DIR")
    one.add_argument("command", nargs="*", help="one word: a shell script")
    one.add_argument("--timeout", type=float, default=120, help="seconds")

    one = commands.add_parser("test", help=tiers.test.__doc__, parents=[guest])
    one.add_argument("tiers", type=Path, nargs="*", metavar="tests/TIER")
    one.add_argument(
        "--in-parts", type=Path, nargs="*", default=[], metavar="tests/TIER",
        help="run the files of these in several guests",
    )  # fmt: skip
    one.add_argument(
        "--dirty", type=Path, nargs="*", default=[], metavar="tests/TIER",
        help="also run the tests of these that are marked `dirty`, on a host made dirty",
    )  # fmt: skip
    one.add_argument(
        "--elsewhere", nargs="+", type=Path, default=[], metavar=("ROOT", "tests/TIER"),
        help="also run these in one guest with another root directory",
    )  # fmt: skip
    one.add_argument("--timeout", type=float, default=3000, help="seconds for each tier")
    one.add_argument("--force-vm", action="store_true", help="even if this host has the nodes")

    one = commands.add_parser("matrix", help=matrix.run.__doc__, parents=[guest])
    one.add_argument("tier", type=Path, metavar="tests/TIER")
    one.add_argument(
        "--with", dest="kernels", type=Path, nargs="*", default=[], help="further kernels"
    )
    one.add_argument("--timeout", type=float, default=7200, help="seconds for each run")

    one = commands.add_parser("once", help=once.run.__doc__, parents=[guest])
    one.add_argument("command", nargs="+")
    one.add_argument("--timeout", type=float, default=600, help="seconds")
    one.add_argument("--unless", type=int, metavar="N", help="run it here if N nodes have memory")

    one = commands.add_parser("summary", help=tiers.summary.__doc__)
    one.add_argument("tiers", nargs="+", metavar="TIER")

    one = commands.add_parser("table", help=tiers.table.__doc__)
    one.add_argument("tiers", nargs="+", metavar="TIER")

    one = commands.add_parser("outcomes", help=tiers.outcomes.__doc__)
    one.add_argument("files", nargs="+", metavar="FILE", help="such as test_folios")
    one.add_argument(
        "--column", nargs="+", action="append", required=True, metavar=("NAME", "TIER"),
        help="a column, and whose results it has",
    )  # fmt: skip
    return top


def act(options: argparse.Namespace, setup: machine.Setup) -> int:
    """Run a subcommand that may need a guest."""
    match options.name:
        case "serve":
            directory = options.directory.resolve()
            return serve.serve(directory, seconds=options.timeout, setup=setup)
        case "once":
            with tempfile.TemporaryDirectory(prefix="numa-once-") as results:
                return once.run(
                    options.command,
                    Path(results),
                    seconds=options.timeout,
                    nodes=options.unless,
                    setup=setup,
                )
        case "matrix":
            return matrix.run(options.tier, options.kernels, seconds=options.timeout, setup=setup)
        case _:
            # The longest first: what is short fills the time that is left in the end.
            chosen = [part for path in options.in_parts for part in tiers.Tier.parts(path)]
            if options.elsewhere:
                root, *paths = options.elsewhere
                chosen.append(tiers.Tier.elsewhere(root.resolve(), paths))
            chosen += map(tiers.Tier.whole, options.tiers)
            chosen += map(tiers.Tier.dirty, options.dirty)
            if setup.root != roots.HOST_ROOT:
                chosen = [tier.on(setup.root) for tier in chosen]
            return tiers.test(
                chosen, seconds=options.timeout, force_vm=options.force_vm, setup=setup
            )


def main() -> int:
    """Parse the arguments and run the subcommand."""
    # The guest must end with this process: an exception leaves the block that runs it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parser().parse_args()
    if options.name == "run":
        return serve.run(options.directory.resolve(), options.command, seconds=options.timeout)
    if options.name == "summary":
        return tiers.summary(options.tiers)
    if options.name == "outcomes":
        columns = {name: names for name, *names in options.column}
        print("\n".join(tiers.outcomes(columns, options.files)))
        return 0
    if options.name == "table":
        print("\n".join(tiers.table(options.tiers)))
        return 0
    shape = machine.Shape(
        nodes=options.nodes,
        mib_per_node=options.mib_per_node,
        memory_only=options.memory_only,
        gib_pages=options.gib_pages,
    )
    setup = machine.Setup(
        shape=shape,
        root=options.root.resolve(),
        kernel=options.kernel,
        kvm=options.kvm,
        systemd=options.systemd,
    )
    try:
        return act(options, setup)
    except machine.CannotBoot as error:
        print(f"cannot boot the virtual machine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
