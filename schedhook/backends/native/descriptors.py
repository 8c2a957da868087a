"""Descriptors that some builds of Python cannot make, since their C library was too old.

Python is asked first, and the C core if the build lacks the function.
"""

from __future__ import annotations

import os

from schedhook.backends.native import _core

# <linux/memfd.h>; builds without os.memfd_create lack its constants, too.
MFD_CLOEXEC = 0x1
MFD_HUGETLB = 0x4
MFD_NOEXEC_SEAL = 0x8
MFD_HUGE_SHIFT = 26


def pidfd_open(pid: int) -> int:
    """Return a descriptor of the process, closed on exec.

    Raise OSError as pidfd_open(2) describes.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _core.pidfd_open(pid)


def memfd_create(name: str, flags: int = MFD_CLOEXEC) -> int:
    """Return a descriptor of a new file in memory.

    Raise OSError as memfd_create(2) describes.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    return _core.memfd_create(name, flags)
