"""Tests with a real Slurm in the virtual machine."""
