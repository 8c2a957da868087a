"""`python -m benchmarks`: measure in the four-node virtual machine, or with --here on this host.

The package schedhook must be installed in the interpreter that runs this.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]
# Last, so that the installed package comes before the checkout, which has no compiled core.
sys.path.append(str(PROJECT))

from benchmarks import report, suite, tools  # noqa: E402
from tests.vm import machine, once  # noqa: E402


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help="which parts, such as anon thp; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=400, help="what most parts move")
    parser.add_argument("--largest", type=int, default=1600, help="for the part `sizes`, MiB")
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--here", action="store_true", help="on this host, as root")
    parser.add_argument("--mib-per-node", type=int, default=2048, help="of the virtual machine")
    parser.add_argument("--kernel", type=Path, help="of the virtual machine; default: Debian's own")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds")
    return parser


def measure(options: argparse.Namespace) -> int:
    """Measure here. Write the results after each part, so that a failing part loses only itself."""
    if not suite.nodes_are_there():
        print("this host has no NUMA nodes 0 and 2: leave out --here", file=sys.stderr)
        return 1
    results, failed = suite.Results(), 0
    largest = suite.largest_size(options.largest)
    for name, part in suite.everything(options.rounds, options.mib, largest):
        if options.parts and name not in options.parts:
            continue
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        tools.tidy()
        try:
            part(results)
        except (RuntimeError, OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
        report.write(results, options.results)
    print(report.table(results))
    return failed


def in_guest(options: argparse.Namespace) -> int:
    """Measure in a virtual machine."""
    shape = machine.Shape(mib_per_node=options.mib_per_node)
    setup = machine.Setup(shape=shape, kernel=options.kernel)
    with tempfile.TemporaryDirectory(prefix="numa-bench-") as shared:
        command = [
            sys.executable, "-P", str(PROJECT / "benchmarks/__main__.py"), "--here",
            "--rounds", str(options.rounds), "--mib", str(options.mib),
            "--largest", str(options.largest), "--results", f"{shared}/benchmarks",
            *options.parts,
        ]  # fmt: skip
        status = once.run(command, Path(shared), seconds=options.timeout, nodes=None, setup=setup)
        if (found := Path(shared, "benchmarks")).exists():
            shutil.copytree(found, options.results, dirs_exist_ok=True)
    return status


def main() -> int:
    options = parser().parse_args()
    return measure(options) if options.here else in_guest(options)


if __name__ == "__main__":
    sys.exit(main())
