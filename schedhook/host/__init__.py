"""Readers of this host's /sys, /proc and cgroups. They write nothing.

Every reader takes the directory to use as `/`, so that a tree of files can play a host in tests;
see schedhook.testing.
"""
