"""Slurm on a virtual machine, for tests."""
