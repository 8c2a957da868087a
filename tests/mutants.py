"""Take lines out of modules, or turn them around, and see whether the unit tests notice.

    python -m tests.mutants [--sample N] [MODULE…]

Each mutant is one small change of a module: a comparison, a boundary, `and` for `or`, a `not`, a
number, a statement left out. The module's own unit tests run on it in a copy of the project. One
that they do not notice survived, and wants a test or a reason: the reasons are in
`mutants_kept.txt`, one a line: `MODULE | WAS | BECOMES | REASON`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
KEPT = Path(__file__).with_name("mutants_kept.txt")
COPIED = ("schedhook", "plugins", "tests", "contrib", "pyproject.toml")
UNIT = "tests/unit"
TARGETS: dict[str, tuple[str, ...]] = {
    # The guard: what is written to other processes, and its way back.
    "schedhook/control/remote.py": ("control/test_remote.py", "control/test_rebinding.py"),
    "schedhook/control/restorers.py": ("control/test_remote.py", "control/test_rebinding.py"),
    "schedhook/control/rollback.py": ("control/test_rollback.py", "control/test_freezer.py"),
    "schedhook/control/undo.py": ("control/test_rollback.py", "control/test_freezer.py"),
    "schedhook/control/threads.py": ("control/test_threads.py", "control/test_affinity.py"),
    "schedhook/control/affinity.py": ("control/test_affinity.py", "control/test_threads.py"),
    "schedhook/control/cpu_move.py": ("control/test_cpu_move.py", "control/test_cpusets.py"),
    "schedhook/control/freezer.py": ("control/test_freezer.py", "relocation/test_carry_out.py"),
    "schedhook/control/cpusets.py": ("control/test_cpusets.py", "control/test_cpu_move.py"),
    "schedhook/values/ownership.py": ("values/test_ownership.py",),
    "schedhook/agent/owners.py": ("agent/test_owners.py",),
    "schedhook/hook/spool.py": ("hook/test_spool.py", "hook/test_fallback.py"),
    "schedhook/agent/spool_reader.py": ("agent/test_spool_reader.py",),
    "schedhook/journal/locks.py": ("journal/test_locks.py", "journal/test_damage.py"),
    "schedhook/relocation/plan.py": (
        "relocation/test_plan.py",
        "relocation/test_pipeline.py",
        "schedhook_plugins/strategies/test_cpuset.py",
        "migration/test_page_choice.py",
    ),
    "schedhook/host/bounded.py": ("host/test_bounded.py",),
}

_BOUNDARIES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_OPPOSITES = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module's text with one change."""

    line: int
    was: str
    becomes: str
    text: str


def mutants(text: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    tree = ast.parse(text)
    untouched = {id(part) for node in _left_alone(tree) for part in ast.walk(node)}
    lines = text.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    negated = {id(node.test) for node in ast.walk(tree) if isinstance(node, (ast.If, ast.While))}
    for node in ast.walk(tree):
        if id(node) in untouched or not isinstance(node, (ast.expr, ast.stmt)):
            continue
        changes = [*_of_expression(node)] if isinstance(node, ast.expr) else [*_of_statement(node)]
        if id(node) in negated and isinstance(node, (ast.Name, ast.Call, ast.Attribute)):
            changes.append(f"(not {ast.unparse(node)})")
        for new in changes:
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            whole = text.encode()
            changed = whole[:begin] + new.encode() + whole[end:]
            was = " ".join(whole[begin:end].decode().split())
            yield Mutant(node.lineno, was, new, changed.decode())


def _left_alone(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what says nothing of what the module does: annotations, decorators, messages, logs."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef():
                yield from (node.args, *node.decorator_list, *filter(None, [node.returns]))
            case ast.AnnAssign(annotation=annotation):
                yield annotation
            case ast.ClassDef(decorator_list=decorators):
                yield from decorators
            case ast.JoinedStr() | ast.ImportFrom() | ast.Import():
                yield node
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
                yield node


def _of_expression(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            for table in (_BOUNDARIES, _OPPOSITES):
                if new := table.get(type(op)):
                    yield _expression(ast.Compare(left, [new()], [right]))
        case ast.BoolOp(op=op, values=values):
            yield _expression(ast.BoolOp(_OPPOSITES[type(op)](), values))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPPOSITES:
            yield _expression(ast.BinOp(left, _OPPOSITES[type(op)](), right))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _expression(operand)
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield repr(value + 1)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield _expression(ast.IfExp(test, orelse, body))


def _of_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Return(value=None):
            yield "pass"
        case ast.Return(value=value) if not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"


def _expression(node: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"


class Copy:
    """A copy of the project in which modules are changed, and the tests that run on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in COPIED:
            source = PROJECT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, directory / name)
        (directory / "schedhook_plugins").symlink_to("plugins")

    def passes(self, tests: Sequence[str], seconds: float) -> bool:
        """Return whether the tests pass within so many seconds, in a fork of this process.

        This process has imported what the tests need, but nothing of the project.
        """
        child = os.fork()
        if child == 0:
            self._run([f"{UNIT}/{test}" for test in tests])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.02)
        _kill_group(child)
        self._kill_rest()
        if not found:
            os.waitpid(child, 0)
        return bool(found) and status == 0

    def _kill_rest(self) -> None:
        """Kill what runs a file of the copy in its own session, as the rollback helper does."""
        name = os.fsencode(self.directory)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if name in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def _run(self, tests: list[str]) -> None:
        status = 1
        try:
            os.setsid()
            os.chdir(self.directory)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            os.environ |= {"PYTHONPATH": str(self.directory), "PYTHONSAFEPATH": "1"}
            sys.path[:] = [str(self.directory), *filter(None, sys.path)]
            sys.modules.pop("tests")  # those of the copy are wanted
            import pytest  # noqa: PLC0415

            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            status = int(pytest.main([*tests, *options]))
        finally:
            os._exit(status)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def reasons() -> set[tuple[str, str, str]]:
    """Return the survivors for which there is a reason."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    rows = [[word.strip() for word in line.split(" | ")] for line in lines]
    return {(row[0], row[1], row[2]) for row in rows if len(row) == 4}


def examine(copy: Copy, module: str, sample: int | None) -> tuple[int, int]:
    """Try a module's mutants, or a sample of them; print the survivors; return killed and all."""
    tests, file = TARGETS[module], copy.directory / module
    text, kept = file.read_text(), reasons()
    began = time.monotonic()
    if not copy.passes(tests, 600):
        sys.exit(f"{module}: its tests fail without any change: {' '.join(tests)}")
    limit = 3 * (time.monotonic() - began) + 10
    every = [each for each in mutants(text) if (module, each.was, each.becomes) not in kept]
    if sample is not None and sample < len(every):
        every = random.Random(module).sample(every, sample)
    killed = 0
    for mutant in sorted(every, key=lambda each: each.line):
        # The size and the time of a cached module's source could be those of another mutant.
        shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
        file.write_text(mutant.text)
        if copy.passes(tests, limit):
            print(f"  {module}:{mutant.line} | {mutant.was} | {mutant.becomes}", flush=True)
        else:
            killed += 1
    file.write_text(text)
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
    if not copy.passes(tests, 600):  # else what has broken them would have killed all mutants
        sys.exit(f"{module}: its tests fail in the end without any change: {' '.join(tests)}")
    share = killed / max(len(every), 1)
    print(f"{module}: {killed} of {len(every)} killed, {share:.0%}", flush=True)
    return killed, len(every)


def main() -> int:
    """Examine the modules; return 1 if less than nine tenths of the mutants are killed, or none."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, help="so many mutants of each module, not all")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    options = parser.parse_args()
    if unknown := set(options.modules) - TARGETS.keys():
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}: see TARGETS")
    for name in (
        "click",
        "hypothesis",
        "pluggy",
        "pytest",
        "rich.console",
        "structlog",
        "tenacity",
    ):
        __import__(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Copy(Path(directory))
        counts = [examine(copy, module, options.sample) for module in options.modules or TARGETS]
    killed, total = map(sum, zip(*counts, strict=True))
    print(f"{killed} of {total} mutants killed, {killed / max(total, 1):.1%}")
    return 0 if killed and killed >= 0.9 * total else 1


if __name__ == "__main__":
    sys.exit(main())
