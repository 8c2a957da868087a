"""The cgroup hierarchies that are mounted on this host, versions 1 and 2; cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from schedhook.host.mounts import read_mounts


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy."""

    point: Path
    top: PurePosixPath
    """The cgroup at the mount point; not `/` in some containers."""
    version: Literal[1, 2]
    controllers: frozenset[str]
    """Of version 1; empty for version 2."""

    def locate(self, name: str) -> Path | None:
        """Return the directory of the cgroup that /proc/PID/cgroup calls `name`.

        None if that cgroup is not below the mount point.
        """
        wanted = PurePosixPath(name)
        if ".." in wanted.parts or not wanted.is_relative_to(self.top):
            return None
        return self.point / wanted.relative_to(self.top)


def read_hierarchies(root: Path = Path("/")) -> list[Hierarchy]:
    """Return the hierarchies in the order of search: cpuset of version 1, version 2, the others."""
    return sorted(
        {mount.point: mount for mount in _mounted(root)}.values(),
        key=lambda mount: (
            "cpuset" not in mount.controllers,
            mount.version != 2,
            len(mount.point.parts),
        ),
    )


def _mounted(root: Path) -> Iterator[Hierarchy]:
    for top, point, kind, options in read_mounts(root):
        if kind not in ("cgroup", "cgroup2", "cpuset"):
            continue
        controllers = set(options.split(",")) if kind == "cgroup" else set()
        if kind == "cpuset":
            controllers.add("cpuset")
        yield Hierarchy(
            point=root / point.lstrip("/"),
            top=PurePosixPath(top),
            version=2 if kind == "cgroup2" else 1,
            controllers=frozenset(controllers),
        )
