"""Profiles of memory accesses: reading a profiler's log, and what it says about pages."""
