"""Load what a command works with: configuration, log, plug-ins."""

from __future__ import annotations

from pathlib import Path

from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config, load_config
from schedhook.values.log import configure


def load(config_path: Path | None) -> tuple[Config, Plugins]:
    """Read the configuration, set up the log as it says, and load the plug-ins.

    Raise ConfigError if the configuration cannot be used.
    """
    config = load_config(config_path)
    configure(config.log.format, config.log.level)
    return config, load_plugins(config)
