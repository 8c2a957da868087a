"""Decisions about off-node memory from figures alone: no module here reads the host or a clock."""
