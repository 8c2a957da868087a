"""Runs a schedhook command and says on standard error what resident memory it took at most, KiB."""

import contextlib
import resource
import sys

from schedhook.cli.main import run

with contextlib.suppress(SystemExit):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
