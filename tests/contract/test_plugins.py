"""What ships keeps to the contracts that are given to authors of plug-ins."""

from __future__ import annotations

from schedhook.testing import MapperContract, SchedulerContract, StrategyContract
from schedhook_plugins import mappers
from schedhook_plugins.schedulers.pbs import scheduler as pbs
from schedhook_plugins.schedulers.slurm import adapter as slurm
from schedhook_plugins.strategies import migrate_process, move_pages


class TestMovePages(StrategyContract):
    plugin = move_pages
    name = "move-pages"


class TestMigrateProcess(StrategyContract):
    plugin = migrate_process
    name = "migrate-process"


class TestRelative(MapperContract):
    plugin = mappers
    name = "relative"


class TestNearest(MapperContract):
    plugin = mappers
    name = "nearest"


class TestSlurm(SchedulerContract):
    plugin = slurm
    name = "slurm"


class TestPbs(SchedulerContract):
    plugin = pbs
    name = "pbs"
