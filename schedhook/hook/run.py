"""What a scheduler's hook runs: `python3 -I -S /…/schedhook/hook/run.py SCHEDULER POINT [options]`.

A file that is run is compiled each time, a module that is imported is not: so this one is short,
and imports `delivery` as a module of its own, which leaves the package and what it imports alone.
"""

import posix
import sys

if __name__ == "__main__":
    # At the end of the path: nothing here may stand in for a module of Python's own.
    sys.path.append(__file__.rpartition("/")[0] or ".")
    import delivery  # type: ignore[import-not-found]

    # Not sys.exit(): nothing needs the interpreter to take itself apart.
    posix._exit(delivery.main(sys.argv[1:]))
