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

    # First, since `delivery` sets a time limit that ends whatever runs then.
    try:
        if posix.listdir("/run/schedhook/rollback"):
            import recovery  # type: ignore[import-not-found]

            recovery.start_recovery()
    except OSError:
        pass  # there are no records, or they are not this user's
    # Not sys.exit(): the interpreter's shutdown takes time, and nothing here needs it.
    posix._exit(delivery.main(sys.argv[1:]))
