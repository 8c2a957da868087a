"""Deliver an event: `python3 -I -S /…/schedhook/hook/run.py SCHEDULER POINT [options]`.

A scheduler's hook runs this file. Python compiles it at each run, but an imported module only once,
so the file is short. It imports `delivery` as a top-level module, so that nothing of the package is
loaded.
"""

import posix
import sys

if __name__ == "__main__":
    # At the end of the path, so that no file here can replace one of Python's own modules.
    sys.path.append(__file__.rpartition("/")[0] or ".")
    import delivery  # type: ignore[import-not-found]

    # Not sys.exit(): the interpreter's shutdown takes time, and nothing here needs it.
    posix._exit(delivery.main(sys.argv[1:]))
