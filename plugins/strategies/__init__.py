"""Strategies that ship: how pages are moved."""
