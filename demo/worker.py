"""Keep checking and rewriting a lot of memory, and notice if a byte is wrong.

Usage: worker.py MIB. Prints a line when its memory is filled. At SIGTERM it checks everything,
prints the result, and exits with status 0 if every byte is right.
"""

from __future__ import annotations

import itertools
import mmap
import random
import signal
import sys
import zlib

MIB = 1 << 20


def content(block: int, version: int) -> bytes:
    """Return the MiB of a block, made from its number and how often it was written."""
    return random.Random(f"{block} {version}").randbytes(4096) * (MIB // 4096)


def main(blocks: int) -> int:
    """Fill the memory, then check and rewrite block after block until SIGTERM."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    memory = mmap.mmap(-1, blocks * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    checksums = {}
    rewritten = 0

    def write(block: int, version: int) -> None:
        data = content(block, version)
        memory[block * MIB : (block + 1) * MIB] = data
        checksums[block] = zlib.crc32(data)

    def is_right(block: int) -> bool:
        return zlib.crc32(memory[block * MIB : (block + 1) * MIB]) == checksums[block]

    for block in range(blocks):
        write(block, 0)
    print(f"{blocks} MiB filled", flush=True)
    wrong = 0
    for version in itertools.count(1):
        for block in range(blocks):
            if stopped:
                break
            wrong += not is_right(block)
            write(block, version)
            rewritten += 1
        if stopped:
            break
    wrong += sum(not is_right(block) for block in range(blocks))
    print(f"{rewritten} MiB checked and rewritten, {wrong} wrong", flush=True)
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
