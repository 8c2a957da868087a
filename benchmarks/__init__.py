"""Measure the speed against a peer and against the bare system call; see docs/speed.md."""
