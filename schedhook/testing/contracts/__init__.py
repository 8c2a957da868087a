"""Contracts: tests that every backend and every plug-in of a role must pass."""
