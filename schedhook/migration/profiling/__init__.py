"""Profiles of memory accesses: reading what a profiler recorded, and what follows for pages."""
