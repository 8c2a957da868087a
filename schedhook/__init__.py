"""schedhook makes a batch job's memory follow the job between NUMA nodes."""

__version__ = "0.1.0"
