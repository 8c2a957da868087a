"""What PBS said about the jobs on this host, kept between its events.

PBS's hooks are told of one moment each: a sister host never hears a job's session, resize does not
say what the job had before. One JSON file for each job, in a directory that only root writes and
that is gone after a reboot, as the jobs are.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from schedhook.errors import SchedhookError
from schedhook.sets import NodeSet

DIRECTORY = Path("run/schedhook/pbs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A suspended job's memory, put aside."""

    node_map: Mapping[int, int]
    """From where it was to where it is."""
    mems: str
    """The job's cpuset.mems before it was widened for that; empty where it has none."""


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
    suspended: bool = False
    parked: Parked | None = None

    def to_json(self) -> str:
        values = asdict(self)
        values["nodes"] = None if self.nodes is None else str(self.nodes)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """ValueError for anything that `to_json` did not write."""
        try:
            values = json.loads(text)
            known = {each.name for each in fields(cls)}
            values = {key: value for key, value in values.items() if key in known}
            values["sessions"] = tuple(map(int, values.get("sessions", ())))
            if values.get("nodes") is not None:
                values["nodes"] = NodeSet.parse(values["nodes"])
            if (parked := values.get("parked")) is not None:
                pairs = {int(old): int(new) for old, new in parked["node_map"].items()}
                values["parked"] = Parked(node_map=pairs, mems=str(parked["mems"]))
            return cls(**values)
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from None


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
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self._directory, prefix=".new-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(state.to_json())
                Path(name).replace(self._path(state.job))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def update(self, job: str, **changes: Any) -> JobState:
        """Change some of what is known, and return all of it."""
        state = replace(self.get(job) or JobState(job=job), **changes)
        self.put(state)
        return state

    def forget(self, job: str) -> None:
        with self._writing():
            self._path(job).unlink(missing_ok=True)

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
