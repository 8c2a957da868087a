"""Selecting and counting the memory of any processes of this host."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.host.processes import read_areas
from schedhook.jobs.census import select_all
from schedhook.values.errors import SchedhookError

PAGE = mmap.PAGESIZE


def test_pages_of_a_memfd_that_no_process_maps() -> None:
    me, file = os.getpid(), os.memfd_create("object")
    os.ftruncate(file, 512 * PAGE)
    os.pwrite(file, b"x" * 256 * PAGE, 0)
    with mmap.mmap(file, 512 * PAGE) as memory:
        assert memory[0] == ord("x")  # maps a page, and some around it
        with NativeBackend().attach(me) as target:
            try:
                for each in NativeBackend().shared_objects([target]):
                    each.areas()
            except SchedhookError as error:
                pytest.skip(str(error))
        selections, _ = select_all({me: read_areas(me)}, Path("/"))
        inode = os.fstat(file).st_ino
        items = [
            item
            for item in selections[me].all_items
            if item.area.object_id and item.area.object_id.inode == inode
        ]
        assert sum(sum(item.counted.values()) for item in items) == 256 * PAGE
        assert sum(item.area.most_mappers == 0 for item in items) == 1
    os.close(file)
