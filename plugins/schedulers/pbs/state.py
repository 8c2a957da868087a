"""What PBS said about the jobs on this host, kept between its events.

PBS's hooks are told of one moment each: a sister host never hears a job's session, resize does not
say what the job had before. One JSON file for each job, in a directory that only root writes and
that is gone after a reboot, as the jobs are.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from schedhook.values.errors import SchedhookError
from schedhook.values.files import replace_file
from schedhook.values.ownership import make_directory
from schedhook.values.sets import NodeSet

DIRECTORY = Path("run/schedhook/pbs")
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A suspended job's memory, put aside."""

    node_map: Mapping[int, int]
    """From where it was to where it is."""
    mems: str
    """The job's cpuset.mems before it was widened for that; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacing:
    """Other processors and nodes that a job is being given; put down before anything changes."""

    cpus: Mapping[int, int]
    """Old processor → new one."""
    nodes: Mapping[int, int]
    """Old node → new one."""
    was: str
    """The job's cpuset.cpus before."""
    mems: str
    """Its cpuset.mems before; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What is known of one job."""

    job: str
    exec_vnode: str | None = None
    host: str = ""
    """This host as PBS calls it."""
    user: int | None = None
    sessions: tuple[int, ...] = ()
    """Sessions of the job's tasks, where PBS told them."""
    nodes: NodeSet | None = None
    """Where its memory was last brought to, or first belonged."""
    following: NodeSet | None = None
    """Where it is being brought to from there."""
    suspended: bool = False
    parked: Parked | None = None
    replacing: Replacing | None = None

    def to_json(self) -> str:
        values = asdict(self)
        for name in ("nodes", "following"):
            values[name] = None if values[name] is None else str(getattr(self, name))
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """ValueError for anything that `to_json` did not write."""
        try:
            values = json.loads(text)
            known = {each.name for each in fields(cls)}
            values = {key: value for key, value in values.items() if key in known}
            values["sessions"] = tuple(map(int, values.get("sessions", ())))
            for name in ("nodes", "following"):
                if values.get(name) is not None:
                    values[name] = NodeSet.parse(values[name])
            if (parked := values.get("parked")) is not None:
                values["parked"] = Parked(
                    node_map=_pairs(parked["node_map"]), mems=str(parked["mems"])
                )
            if (replacing := values.get("replacing")) is not None:
                values["replacing"] = Replacing(
                    cpus=_pairs(replacing["cpus"]),
                    nodes=_pairs(replacing["nodes"]),
                    was=str(replacing["was"]),
                    mems=str(replacing["mems"]),
                )
            return cls(**values)
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from None


def _pairs(told: Mapping[Any, Any]) -> dict[int, int]:
    return {int(old): int(new) for old, new in told.items()}


class States:
    """The states of this host's jobs. SchedhookError where the directory cannot be written."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._directory = root / DIRECTORY

    def get(self, job: str) -> JobState | None:
        """None where nothing is known, or what is known cannot be read."""
        try:
            return JobState.from_json(self._path(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put(self, state: JobState) -> None:
        """Replace what is known of the job, in one step."""
        with self._writing():
            make_directory(self._directory, 0o700)
            replace_file(self._path(state.job), state.to_json().encode(), 0o600)

    def update(self, job: str, **changes: Any) -> JobState:
        """Change some of what is known, and return all of it."""
        state = replace(self.get(job) or JobState(job=job), **changes)
        self.put(state)
        return state

    def forget(self, job: str) -> None:
        with self._writing():
            self._path(job).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what was being written when its writer was killed, after an hour."""
        with self._writing():
            for path in self._directory.glob(".*.tmp"):
                if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)

    def jobs(self) -> tuple[str, ...]:
        """Every job that something is known of."""
        try:
            names = [entry.name for entry in self._directory.iterdir()]
        except OSError:
            return ()
        jobs = (unquote(name, errors="surrogatepass") for name in names if name[:1] != ".")
        return tuple(sorted(jobs))

    def _path(self, job: str) -> Path:
        # quote leaves dots alone; a name has to be neither hidden nor a way up.
        name = quote(job, safe="[]@", errors="surrogatepass")
        return self._directory / (f"%2E{name[1:]}" if name.startswith(".") else name)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SchedhookError(f"{self._directory}: {error.strerror}") from error
