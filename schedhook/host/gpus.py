"""Memory of GPUs that the kernel shows as NUMA nodes, as the GPUs' driver says.

NVIDIA's driver does so where processors and GPUs share addresses (Grace Hopper, POWER9): a file
/proc/driver/nvidia/gpus/ADDRESS/numa_status for each GPU, with a line `Node: 2`.
"""

from __future__ import annotations

import re
from pathlib import Path

from schedhook.host._sysfs import read_text
from schedhook.host.listing import find_directories
from schedhook.values.sets import NodeSet

_GPUS = "proc/driver/nvidia/gpus"
_NODE = re.compile(r"^\s*Node:\s*(\d{1,9})\s*$", re.MULTILINE | re.ASCII)


def read_gpu_nodes(root: Path = Path("/")) -> NodeSet:
    """Return the nodes that the driver names; none without the driver."""
    gpus = root / _GPUS
    texts = (read_text(gpus / name / "numa_status") for name in find_directories(gpus))
    return NodeSet(int(number) for text in texts for number in _NODE.findall(text))
