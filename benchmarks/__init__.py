"""Measure speed against a peer and the bare system call; see docs/explanation/speed.md."""
