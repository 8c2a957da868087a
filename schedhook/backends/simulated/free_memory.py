"""The free memory of simulated nodes."""

from __future__ import annotations

from dataclasses import replace

from schedhook.backends.simulated.memory import Memory
from schedhook.host.topology import Topology


class FreeMemory:
    """The free bytes, and the free huge pages of each pool, of every node."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._free = {number: node.memory_free for number, node in topology.nodes.items()}
        self._cache = {number: node.memory_reclaimable for number, node in topology.nodes.items()}
        self._pools = {
            (number, pool.size): pool.free
            for number, node in topology.nodes.items()
            for pool in node.huge_pools
        }

    def topology(self) -> Topology:
        """Return the topology with what is free now."""
        return Topology(
            nodes={
                number: replace(
                    node,
                    memory_free=self._free[number],
                    memory_reclaimable=self._cache[number],
                    huge_pools=tuple(
                        replace(pool, free=self._pools[number, pool.size])
                        for pool in node.huge_pools
                    ),
                )
                for number, node in self._topology.nodes.items()
            }
        )

    def room(self, memory: Memory, node: int) -> int:
        """Return the bytes that `node` can give for pages of this memory, clean cache included."""
        if memory.pool:
            return self._pools.get((node, memory.pool), 0) * memory.pool
        return self._free.get(node, 0) + self._cache.get(node, 0)

    def take(self, memory: Memory, node: int, size: int) -> None:
        """Allocate `size` bytes of a node for the memory; a negative size frees them."""
        if memory.pool:
            key = (node, memory.pool)
            self._pools[key] = self._pools.get(key, 0) - size // memory.pool
        elif node in self._free:
            dropped = min(max(size - self._free[node], 0), self._cache[node])
            self._cache[node] -= dropped
            self._free[node] -= size - dropped
