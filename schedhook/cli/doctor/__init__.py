"""The checks of `schedhook doctor`.

To add one: write a function that takes a Setup and yields findings, in the module of its subject,
and add it to CHECKS in examination.py.
"""
