"""Shared memory that several jobs map: it is the business of one of them, and at home with each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from schedhook.migration.move import Move
from schedhook.relocation.home import Way, WaysHome
from schedhook.roles.strategy import Choice, PageChoice, Pages
from schedhook.values.objects import ObjectId


class SharedByJobs:
    """Which jobs map an object, whether they have pages of it on foreign nodes or not."""

    def __init__(self, moves: Mapping[int, Move]) -> None:
        """Take the moves of the jobs, by a number of each, as their memory was just read."""
        self._jobs: dict[ObjectId, set[int]] = {}
        self._areas: dict[int, list[tuple[int, int, ObjectId]]] = {}
        for number, move in moves.items():
            for process in move.processes:
                found = sorted(
                    (
                        (area.start, area.end, area.object_id)
                        for area in process.selection.areas
                        if area.is_shared and area.object_id
                    ),
                    key=lambda each: each[:2],
                )
                self._areas[process.pid] = found
                for _, _, object_id in found:
                    self._jobs.setdefault(object_id, set()).add(number)

    def jobs(self, pages: Pages) -> list[int]:
        """Return the jobs that map what these pages belong to, ascending; none if it is private."""
        areas = self._areas.get(pages.pid, [])
        index = bisect_right(areas, pages.start, key=lambda each: each[0]) - 1
        if index < 0 or pages.start >= areas[index][1]:
            return []
        return sorted(self._jobs[areas[index][2]])


def choose_among_jobs(
    number: int, homes: Mapping[int, WaysHome], shared: SharedByJobs
) -> PageChoice:
    """Return how the job `number` chooses: what others map too is left to the first of them."""

    def choose(pages: Pages) -> Choice:
        jobs = shared.jobs(pages)
        if len(jobs) < 2:
            return homes[number].choose(pages)
        return (
            homes[number].choose_for_all(pages, _ways(homes, jobs)) if jobs[0] == number else None
        )

    return choose


def _ways(homes: Mapping[int, WaysHome], jobs: Iterable[int]) -> list[Way]:
    return [way for number in jobs for way in homes[number].ways.values()]
