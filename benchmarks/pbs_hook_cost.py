"""Measure what PBS's hook adds to the start of a job: `python -m benchmarks.pbs_hook_cost`.

The hook, with the words that `contrib/pbs/install` writes for it, takes turns with an empty one:
both see a begin and a launch, as pbs_mom shows them, in a stand-in for PBS's interpreter (or in
PBS's own, below SCHEDHOOK_PBS_EXEC). An agent is alive, and must know every job afterwards. The
exit status is 1 if the two events add more than 0.03 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

from benchmarks.hook_cost import agent
from schedhook.hook import run
from schedhook.journal.journal import Journal
from tests.pbs.mom import Mom

CONTRIB = Path(__file__).parents[1] / "contrib/pbs"
ADDED_LIMIT = 0.03
EMPTY = "import pbs\npbs.event().accept()\n"


def make_mom(directory: Path, script: str, words: list[str]) -> Mom:
    """Return an execution host with one hook."""
    directory.mkdir()
    (directory / "hook.PY").write_text(script)
    mom = Mom(directory=directory)
    mom.import_hook(directory / "hook.PY")
    mom.import_config(json.dumps({"program": words, "seconds": {"default": 1.8}}))
    return mom


def start_job(mom: Mom, number: int) -> float:
    """Return the seconds of both events of a job."""
    job = {"id": f"{number}.n1", "euser": "root", "exec_vnode": "(n1[0]:ncpus=1)", "run_count": 1}
    begin = mom.run("execjob_begin", job=job, vnode_list={})
    launch = mom.run("execjob_launch", job=job, progname="/bin/sh", argv=["-sh"], env={})
    for result in (begin, launch):
        if not result.accepted or result.errors:
            raise SystemExit(f"the hook failed: {result}")
    return begin.seconds + launch.seconds


def measure(directory: Path, runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each job with the empty hook, and with ours."""
    socket, spool = directory / "agent.sock", directory / "spool"
    words = [sys.executable, "-I", "-S", run.__file__, f"--socket={socket}", f"--spool={spool}"]
    empty = make_mom(directory / "empty", EMPTY, words)
    ours = make_mom(directory / "ours", (CONTRIB / "schedhook.PY").read_text(), words)
    without, with_hook = list[float](), list[float]()
    with agent(directory, sys.executable):
        for number in range(runs + 1):
            turns = [(empty, without), (ours, with_hook)]
            for mom, seconds in turns if number % 2 else turns[::-1]:
                seconds.append(start_job(mom, number + 1))
    with Journal.open(directory / "state/journal.db", create=False) as journal:
        jobs = len(journal.history(limit=10**6))
    if jobs != runs + 1:
        raise SystemExit(f"the journal has {jobs} jobs, not {runs + 1}")
    return without[1:], with_hook[1:]  # the first one compiles and fills caches


def main() -> int:
    """Return the exit status: 1 if the hook costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        without, with_hook = measure(Path(name), options.runs)
    for what, taken in (("empty hook", without), ("schedhook's hook", with_hook)):
        low, middle, high = quantiles(taken, n=4)
        print(f"{what:16}: begin and launch {middle:.4f} s, half in {low:.4f} to {high:.4f} s")
    added = median(with_hook) - median(without)
    print(f"added: {added:.4f} s (limit {ADDED_LIMIT}); load {os.getloadavg()[0]:.1f}")
    return 0 if added <= ADDED_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
