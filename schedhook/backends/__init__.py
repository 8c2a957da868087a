"""The backends: Linux system calls, and a simulated host."""
