"""The commands, one module each, which defines `command` and imports no other command.

To add one: write its module, and add its name and summary to COMMANDS in schedhook/cli/main.py.
"""
