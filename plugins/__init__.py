"""The plug-ins that ship. They use only what docs/reference/stability.md calls public."""

BUILT_IN = (
    "schedhook_plugins.backends",
    "schedhook_plugins.mappers",
    "schedhook_plugins.schedulers.pbs.scheduler",
    "schedhook_plugins.schedulers.slurm.scheduler",
    "schedhook_plugins.strategies.cpuset",
    "schedhook_plugins.strategies.hot_first",
    "schedhook_plugins.strategies.migrate_process",
    "schedhook_plugins.strategies.move_pages",
    "schedhook_plugins.strategies.profile_guided",
)
"""Modules with plug-in hooks, which are loaded without reading package metadata."""
