"""Writes to the host: cpusets, affinity and freezing, each with its way back."""
