"""Exits the program when it is imported."""

import sys

sys.exit("this host is not licensed")
