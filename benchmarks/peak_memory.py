"""Run a schedhook command and print its peak resident memory in KiB on standard error."""

import contextlib
import resource
import sys

from schedhook.cli.main import run

with contextlib.suppress(SystemExit):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
