"""The plug-in for Slurm, and the command job-migrate."""
