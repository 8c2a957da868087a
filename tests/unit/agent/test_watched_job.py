"""Parts of a watched job: the debounce, and the sampled processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from schedhook.agent.watched_job import Debounce, ProcessSample
from schedhook.roles.scheduler import Task
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet

NOWHERE = Placement(cpus=CpuSet(), nodes=NodeSet())


def test_a_change_delays_the_action_until_it_is_quiet() -> None:
    debounce = Debounce(0.5)
    assert debounce.due is None
    debounce.touch(10.0)
    debounce.touch(10.4)
    assert debounce.due == 10.9
    debounce.reset(10.9)
    assert debounce.due is None


def test_changes_delay_the_action_ten_times_at_most() -> None:
    debounce = Debounce(0.5)
    for tenths in range(100, 200):
        debounce.touch(tenths / 10)
    assert debounce.due == 15.0


def test_actions_that_follow_one_another_get_rarer() -> None:
    debounce, actions = Debounce(0.5), list[float]()
    for tenths in range(10_000, 16_000):  # ten minutes
        now = tenths / 10
        if tenths % 30 == 0:
            debounce.touch(now)
        if debounce.due is not None and now >= debounce.due:
            debounce.reset(now)
            actions.append(now)
    assert 20 <= len(actions) <= 35
    assert actions[-1] - actions[-2] >= 30

    assert debounce.due is not None
    debounce.reset(debounce.due)
    debounce.touch(2000.0)  # after it was quiet
    assert debounce.due == 2000.5
    debounce.reset(2000.5)
    debounce.touch(2001.0)
    assert debounce.due == 2001.5


def test_an_exited_process_leaves_the_sample() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        pids = (os.getpid(), process.pid)
        sample = ProcessSample([Task(name="0", pids=pids, placement=NOWHERE)], Path("/"))
        assert sample.compare() == (False, False)
        process.kill()
    assert sample.compare() == (False, True)
    assert sample.compare() == (False, False)
    assert not sample.is_empty
    sample.close()
