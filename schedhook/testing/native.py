"""The native backend for the contract, with real processes."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.roles.backend import Backend
from schedhook.testing.contracts.one_node import OneNodeContract, Subject
from schedhook.testing.processes import NativeProcess, huge_page_pool, numa_maps
from schedhook.values import errors

HUGE = mmap.PAGESIZE * mmap.PAGESIZE // 8
"""Bytes of a transparent huge page, and of one of the default pool: as many pages as a page of the
page table has entries."""
_NOBODY = 65534


class NativeSubject(NativeProcess):
    """A real process whose residency is read from the kernel, without schedhook's readers."""

    def residency(self) -> dict[int, int]:
        return numa_maps(self.pid, self.start)


class NativeHooks(OneNodeContract):
    """The native backend's methods for a contract; inherit from this and from the contract."""

    def make_backend(self) -> Backend:
        return NativeBackend()

    @contextlib.contextmanager
    def make_process(
        self,
        backend: Backend,  # noqa: ARG002 - reaches every process
        *,
        nodes: Sequence[int | None],
        shared: bool = False,
        share_with: Subject | None = None,
        folios: bool = False,
        huge: bool = False,
    ) -> Iterator[Subject]:
        with contextlib.ExitStack() as stack:
            if huge:
                for node in self.nodes[:2]:
                    stack.enter_context(huge_page_pool(node, HUGE, len(nodes)))
            assert share_with is None or isinstance(share_with, NativeProcess)
            yield stack.enter_context(
                NativeSubject(
                    nodes=nodes,
                    page_size=HUGE if huge else mmap.PAGESIZE,
                    folio_size=HUGE if folios else 0,
                    shared=shared,
                    share_with=share_with,
                )
            )

    def attach_forbidden(self, backend: Backend) -> None:
        if os.geteuid() != 0:
            backend.attach(1)
            pytest.fail("the user who runs the tests may attach to process 1")
        raised = _in_child(_NOBODY, lambda: backend.attach(os.getppid()))
        if raised:
            raise getattr(errors, raised)


def _in_child(user: int, call: Callable[[], object]) -> str:
    """Run `call` as that user in a child process; return the name of the exception it raises.

    Return the empty string if it raises none.
    """
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            call()
        except BaseException as error:  # noqa: BLE001 - the parent gets its name
            os.write(into, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as reader:
        name = reader.read()
    os.waitpid(pid, 0)
    return name
