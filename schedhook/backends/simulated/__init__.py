"""A backend in memory, for unit tests and for planning on a snapshot of a host.

It does what the role and the manual pages promise, and what a test scripts. It proves nothing about
the kernel: the tests in the virtual machine cover the kernel's behaviour.

    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 8 + [1] * 8)])
    backend.fail(100, 0x10000, [errno.EBUSY, errno.EBUSY])
"""

from __future__ import annotations

from schedhook.backends.simulated.backend import SimulatedBackend, four_nodes
from schedhook.backends.simulated.memory import PAGE, SimulatedArea

__all__ = ["PAGE", "SimulatedArea", "SimulatedBackend", "four_nodes"]
