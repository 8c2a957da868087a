"""Lock jobs against other processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from schedhook.journal.errors import JobLockedError
from schedhook.journal.journal import Journal

SPAWN = multiprocessing.get_context("spawn")


def hold_lock(path: Path, ready: Path) -> None:
    with Journal.open(path) as journal, journal.locks.acquire("slurm", "7"):
        ready.touch()
        time.sleep(600)


def test_a_lock_excludes_other_processes_and_ends_with_its_process(
    path: Path, tmp_path: Path
) -> None:
    with Journal.open(path) as journal:
        with journal.locks.acquire("slurm", "7"):
            assert not journal.locks.is_locked("slurm", "7")
        holder = SPAWN.Process(target=hold_lock, args=(path, tmp_path / "ready"))
        holder.start()
        while not (tmp_path / "ready").exists():
            assert holder.is_alive()
            time.sleep(0.02)
        assert journal.locks.is_locked("slurm", "7")
        assert not journal.locks.is_locked("slurm", "8")
        with pytest.raises(JobLockedError, match=f"process {holder.pid} is working on job 7"):
            journal.locks.acquire("slurm", "7").__enter__()
        threading.Timer(0.3, holder.kill).start()
        with journal.locks.acquire("slurm", "7", wait=60):
            holder.join(60)
            assert holder.exitcode is not None, "two processes hold the lock"
        assert not journal.locks.is_locked("slurm", "7")
        journal.prune(1)


def test_locks_of_dead_processes_are_deleted(path: Path) -> None:
    def held() -> list[str]:
        with journal.database.read() as db:
            return [row[0] for row in db.execute("SELECT job FROM locks")]

    with Journal.open(path) as journal, journal.locks.acquire("slurm", "7"):
        with journal.database.write() as db:  # as if this process had the number of a dead one
            dead = ("slurm", "8", os.getppid(), 1, time.time() + 600)
            db.execute("INSERT INTO locks VALUES (?, ?, ?, ?, ?)", dead)
        assert not journal.locks.is_locked("slurm", "8")
        journal.locks.delete_stale()
        assert held() == ["7"]


def test_a_lock_is_waited_for_no_longer_than_wanted(path: Path, tmp_path: Path) -> None:
    with Journal.open(path) as journal:
        holder = SPAWN.Process(target=hold_lock, args=(path, tmp_path / "ready"))
        holder.start()
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        began = time.monotonic()
        with pytest.raises(JobLockedError):
            journal.locks.acquire("slurm", "7", wait=0.5).__enter__()
        assert 0.5 <= time.monotonic() - began < 30
        holder.kill()
        holder.join()
