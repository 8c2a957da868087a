"""The processes of a request: attach to them, and find those that join later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from schedhook.host.processes import read_status
from schedhook.host.vanishing import read_living
from schedhook.migration.processes import MovingProcess
from schedhook.roles.backend import Backend, Target
from schedhook.roles.request import Request
from schedhook.values.errors import (
    KernelThreadError,
    NoPermissionError,
    ProcessGoneError,
    UsageError,
)
from schedhook.values.sets import CpuSet


class Members:
    """The processes that belong to a request, each held by its target until the block ends."""

    def __init__(
        self, request: Request, backend: Backend, job_pids: Callable[[str], Iterable[int]]
    ) -> None:
        """`job_pids` finds the processes of a job."""
        self.ended: list[MovingProcess] = []
        """Processes whose pids belong to newcomers by now."""
        self._request = request
        self._backend = backend
        self._job_pids = job_pids
        self._stack = ExitStack()
        self._by_pid: dict[int, MovingProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def processes(self) -> list[MovingProcess]:
        """Every process held, except those of `ended`."""
        return list(self._by_pid.values())

    def pids(self) -> list[int]:
        """Return the pids that belong to the request now: those it names, and newcomers."""
        return list(dict.fromkeys([*self._request.pids, *self._newcomer_pids()]))

    def attach_named(self) -> None:
        """Attach to every process of the request.

        Raise ProcessGoneError or KernelThreadError if that is what a pid of the request is;
        RefusedError if the caller may not move a process's memory.
        """
        self._attach(self.pids(), must_exist=bool(self._request.pids))

    def attach_newcomers(self) -> list[MovingProcess]:
        """Attach to processes that have joined the cgroup or job, and return these."""
        known = set(map(id, self._by_pid.values()))
        with suppress(UsageError):  # the cgroup or job has ended
            self._attach(self._newcomer_pids(), must_exist=False)
        return [process for process in self.processes if id(process) not in known]

    def attach_again(self, process: MovingProcess) -> Target | None:
        """Return a new target for a process that became another program; None if it ended."""
        if process.target.no_answer or not process.target.alive():
            return None
        with suppress(ProcessGoneError, NoPermissionError):
            target = self._stack.enter_context(self._backend.attach(process.pid))
            if process.target.alive():  # so the pid still meant the same process
                return target
        return None

    def allowed_cpus(self, root: Path) -> CpuSet:
        """Return the processors that any of the processes may use now."""
        cpus = CpuSet()
        for _, status in read_living(self._by_pid, lambda pid: read_status(pid, root)):
            cpus = cpus | status.allowed_cpus
        return cpus

    def _newcomer_pids(self) -> Iterable[int]:
        """Yield the pids of the cgroup or job, unless the request names some of a job's."""
        if self._request.cgroup is not None or not self._request.pids:
            yield from self._listed_pids()

    def _listed_pids(self) -> Iterable[int]:
        if self._request.cgroup is not None:
            return self._backend.cgroup_pids(self._request.cgroup)
        if self._request.job is not None:
            return self._job_pids(self._request.job)
        return ()

    def _attach(self, pids: Iterable[int], *, must_exist: bool) -> None:
        found = dict[int, Target]()
        for pid in pids:
            known = self._by_pid.get(pid)
            if known is not None and known.target.alive():
                continue
            try:
                found[pid] = self._stack.enter_context(self._backend.attach(pid))
            except ProcessGoneError:
                if must_exist and pid in self._request.pids:
                    raise
            except KernelThreadError:
                if pid in self._request.pids and self._request.job is None:
                    raise  # else it is in the cgroup of a virtual machine, or in the root cgroup
        for pid, target in self._confirmed(found):
            if pid in self._by_pid:
                self.ended.append(self._by_pid[pid])
            self._by_pid[pid] = MovingProcess(target=target)

    def _confirmed(self, found: Mapping[int, Target]) -> Iterable[tuple[int, Target]]:
        """Return those targets that belong to the request.

        After the pids were listed and before they were held, a pid can have become that of a
        process that does not belong to it.
        """
        request = self._request
        of_a_job = request.job is not None and request.scheduler is not None
        sure = found.keys() & (() if of_a_job else request.pids)
        if len(sure) < len(found):
            with suppress(UsageError):  # the cgroup or job has ended
                sure = sure | set(self._listed_pids())
        return [(pid, target) for pid, target in found.items() if pid in sure]
