"""Do work with several threads, or with this one if the kernel has no other to give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from schedhook.migration.options import MoveOptions
from schedhook.migration.throttle import bind_thread

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def for_each(
    function: Callable[[_Item], _Result], items: Iterable[_Item], options: MoveOptions
) -> list[_Result]:
    """Call `function` for each item with the next free thread; return the results in any order.

    The threads are bound to their processors. If a limit on processes allows fewer than wanted
    (RLIMIT_NPROC, pids.max), those do the work.
    """
    source, turn = iter(items), threading.Lock()

    def work() -> list[_Result]:
        results: list[_Result] = []
        while True:
            with turn:
                try:
                    item = next(source)
                except StopIteration:
                    return results
            results.append(function(item))

    workers: list[Future[list[_Result]]] = []
    own: list[_Result] = []
    with ThreadPoolExecutor(
        options.threads,
        thread_name_prefix="schedhook-move",
        initializer=bind_thread,
        initargs=(options.cpus,),
    ) as pool:
        with suppress(RuntimeError):  # can't start new thread
            for _ in range(options.threads):
                workers.append(pool.submit(work))
        if not workers:
            own = work()
    return own + [result for worker in workers for result in worker.result()]
