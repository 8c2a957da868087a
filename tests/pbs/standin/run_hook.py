"""Runs a hook's text as pbs_python does: compiled by itself, `__name__` 'builtins', and nothing of
ours on the path but the module `pbs`. Started with -I -S -OO; arguments: directory, hook.
"""

import builtins
import os
import sys

sys.path.insert(0, sys.argv[1])
with os.fdopen(os.open(sys.argv[2], os.O_RDONLY), encoding="ascii") as file:
    text = file.read()  # qmgr's "default" is 7 bit
code = compile(text, "<embedded code object>", "exec")
del sys.argv[1:]
try:
    exec(code, {"__builtins__": builtins, "__name__": "builtins"})
except SystemExit:  # accept and reject leave by it, with a string that python would print
    sys.exit(0)
