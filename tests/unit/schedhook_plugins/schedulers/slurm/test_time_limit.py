"""How long a job may still run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schedhook_plugins.schedulers.slurm.queries import CommandResult, NotUsable
from schedhook_plugins.schedulers.slurm.time_limit import TimeLimits, parse_time_left


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:30", 30),
        ("59:59", 3599),
        ("1:00:00", 3600),
        ("2-03:04:05", 183_845),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_squeue_s_time(text: str, seconds: float | None) -> None:
    assert parse_time_left(text) == seconds


class Controller:
    """Answers squeue, and counts how often it is asked."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.asked: list[Sequence[str]] = []
        self.now = 0.0

    def run(self, command: Sequence[str]) -> CommandResult:
        self.asked.append(command)
        if not self.output:
            raise NotUsable("it is down")
        return CommandResult(status=0, output=self.output)

    def limits(self) -> TimeLimits:
        return TimeLimits(lambda: self.run, lambda: self.now)


def test_the_controller_is_asked_once_in_ten_minutes() -> None:
    controller = Controller("36|1:00\n38|1:00:00\n")
    limits = controller.limits()
    assert limits.left("38") == 3600
    controller.now = 599
    assert limits.left("38") == 3001
    assert len(controller.asked) == 1
    controller.now = 600
    controller.output = "38|2:00:00\n"
    assert limits.left("38") == 7200


def test_a_controller_that_is_down_is_not_asked_again_at_once() -> None:
    controller = Controller("")
    limits = controller.limits()
    assert [limits.left("38"), limits.left("38")] == [None, None]
    assert len(controller.asked) == 1


def test_a_job_that_the_answer_lacks_has_no_limit() -> None:
    assert Controller("37|1:00\n").limits().left("38") is None
