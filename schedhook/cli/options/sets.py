"""Sets of nodes and processors as option values, completed from those that are online."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

from schedhook.cli.completion import complete_set
from schedhook.cli.options.types import ParamType
from schedhook.host.topology import read_online_cpus, read_online_nodes
from schedhook.values.errors import SchedhookError
from schedhook.values.sets import CpuSet, IdSet, NodeSet


@dataclass(frozen=True, slots=True)
class AllBut:
    """All nodes except these, as `!2` names them."""

    nodes: NodeSet


class IdSetType(ParamType):
    """A set in the kernel's list format, such as `0-3,8`."""

    def __init__(
        self, kind: type[IdSet], name: str, read_online: Callable[[Path], Iterable[int]]
    ) -> None:
        self._kind = kind
        self._read_online = read_online
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IdSet | AllBut:
        if isinstance(value, IdSet):
            return value
        try:
            ids = self._kind.parse(value)
        except ValueError as error:
            self.fail(f"bad list {value!r}: {error}", param, ctx)
        if not ids:
            self.fail("the list is empty; write it like 0-3,8", param, ctx)
        return ids

    def shell_complete(
        self, ctx: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        root = Path(ctx.params.get("root") or "/")
        try:
            return complete_set(self._read_online(root), incomplete)
        except (SchedhookError, OSError, ValueError):
            return []


class AnyNodesType(IdSetType):
    """Such a set of nodes, or `!` and a set: all other nodes, as numactl(8) has it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IdSet | AllBut:
        if isinstance(value, str) and value.startswith("!"):
            return AllBut(cast(NodeSet, super().convert(value[1:], param, ctx)))
        return value if isinstance(value, AllBut) else super().convert(value, param, ctx)


NODES = IdSetType(NodeSet, "nodes", read_online_nodes)
ANY_NODES = AnyNodesType(NodeSet, "nodes", read_online_nodes)
CPUS = IdSetType(CpuSet, "cpus", read_online_cpus)
