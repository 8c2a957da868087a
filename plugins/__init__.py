"""The plug-ins that ship. They use what any other plug-in can use."""

BUILT_IN = (
    "schedhook_plugins.backends",
    "schedhook_plugins.mappers",
    "schedhook_plugins.schedulers.pbs.scheduler",
    "schedhook_plugins.schedulers.slurm.scheduler",
    "schedhook_plugins.strategies.cpuset",
    "schedhook_plugins.strategies.migrate_process",
    "schedhook_plugins.strategies.move_pages",
    "schedhook_plugins.strategies.profile_guided",
)
"""Modules with hooks, which the plug-in manager registers without looking at package metadata."""
