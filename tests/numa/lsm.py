"""Denials by a security module: a BPF program on a hook of the kernel; bpf(2), <linux/bpf.h>.

SELinux denies on the same hook, with the same EACCES.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.numa.puppet import Call

_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17
_TYPE_LSM, _ATTACH_LSM_MAC = 29, 27
_KIND_FUNC = 12
_BTF = Path("/sys/kernel/btf/vmlinux")

# Bytes after each type's head, and how many more for each member; <linux/btf.h>.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


@contextmanager
def denying(hook: str) -> Iterator[None]:
    """Let the kernel's hook, such as task_movememory, return EACCES during the block."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, -errno.EACCES)  # r0 = -EACCES
    code += struct.pack("<BBhi", 0x95, 0, 0, 0)  # return r0
    instructions = ctypes.create_string_buffer(code)
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")
    request = struct.pack(
        "<IIQQ44xI36xI",
        *(_TYPE_LSM, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
        *(_ATTACH_LSM_MAC, _function(f"bpf_lsm_{hook}")),
    )
    program = _bpf(_PROG_LOAD, request)
    try:
        link = _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program))
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(program)


def _function(name: str) -> int:
    """Return the id of a function in the kernel's BTF type data."""
    data = _BTF.read_bytes()
    head, types, types_size, strings = struct.unpack_from("<4xIIII", data)
    wanted = data.index(b"\0" + name.encode() + b"\0", head + strings) + 1 - head - strings
    position, number = head + types, 0
    while position < head + types + types_size:
        number += 1
        at, info = struct.unpack_from("<II", data, position)
        kind = info >> 24 & 0x1F
        if at == wanted and kind == _KIND_FUNC:
            return number
        position += 12 + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * (info & 0xFFFF)
    raise LookupError(name)


def _bpf(command: int, request: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(Call.BPF, command, request, len(request))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"bpf command {command}")
    return result
