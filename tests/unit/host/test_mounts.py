"""The table of mounts, with names that users choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.host.mounts import Mount, read_mounts
from schedhook.testing.hosts import write_file

LINES = (
    rb"30 1 0:26 /a\040b /sys/fs/c\134d\011\012 rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
    b"31 1 0:27 / /home/u/x\ry\x0bz\x85\xe2\x80\xa8 rw - fuse.sshfs h: rw,user_id=5",
    b"32 1 0:28 / /mnt/\xff rw shared:1 master:2 - ext4 /dev/vda rw",
)


def test_names_are_not_changed(tmp_path: Path) -> None:
    write_file(tmp_path, "proc/self/mountinfo", b"\n".join(LINES) + b"\n")
    assert read_mounts(tmp_path) == [
        Mount("/a b", "/sys/fs/c\\d\t\n", "cgroup2", "rw,nsdelegate"),
        Mount("/", os.fsdecode(b"/home/u/x\ry\x0bz\x85\xe2\x80\xa8"), "fuse.sshfs", "rw,user_id=5"),
        Mount("/", "/mnt/\udcff", "ext4", "rw"),
    ]


def test_the_older_table_is_the_fallback(tmp_path: Path) -> None:
    assert read_mounts(tmp_path) == []
    write_file(tmp_path, "proc/mounts", b"none /x\ry cgroup2 rw 0 0\nhalf a\n")
    assert read_mounts(tmp_path) == [Mount("/", "/x\ry", "cgroup2", "rw")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
def test_a_mount_with_a_strange_name_does_not_affect_the_journal(tmp_path: Path) -> None:
    """A user of fusermount(1) must not keep root's agent from starting."""
    program = (
        "import pathlib, sys, schedhook.journal.journal as it\n"
        "it.Journal.open(pathlib.Path(sys.argv[1]) / 'journal.db').close()"
    )
    strange = tmp_path / "a\rb"
    strange.mkdir()
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", strange, sys.executable, program, tmp_path]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
