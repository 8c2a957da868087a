"""The configuration file, as frozen values.

A section is a dataclass: its fields are the keys, their types say what is allowed, and their
defaults apply if a key is missing. To add a key, add a field; to add a section, add a dataclass and
a field of Config.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from schedhook.values.actions import ActionsSection
from schedhook.values.errors import ConfigError
from schedhook.values.model import MemoryKind, Policies, Shared
from schedhook.values.ownership import explain_untrusted
from schedhook.values.sections import (
    NOT_A_KEY,
    NOT_EMPTY,
    between,
    ending,
    matching,
    needing,
    read_section,
)

DEFAULT_PATH = Path("/etc/schedhook/config.toml")
PATH_VARIABLE = "SCHEDHOOK_CONFIG"


class LogFormat(StrEnum):
    """The format of log lines."""

    AUTO = "auto"
    """`console` if standard error is a terminal, else `json`."""
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationSection:
    """[relocation]: defaults for what the command line does not set."""

    strategy: str = "move-pages"
    mapper: str = "relative"
    backend: str = "native"
    shared: Shared = Shared.JOB
    kinds: tuple[MemoryKind, ...] = field(default=tuple(MemoryKind), metadata=NOT_EMPTY)
    threads: int = between(0, 1024, 0)
    """0: chosen from the host's processors and the plan."""
    bandwidth_mb_s: float = between(0, 1_000_000, 0.0)
    """Maximum rate, in units of 1,000,000 bytes per second; 0: no limit."""
    reserve_mb: int = between(0, 1 << 30, 64)
    """What must stay free on each destination node, in units of 1,048,576 bytes."""
    overcommit: bool = False
    """What other cgroups may still allocate on a node, and nowhere else, counts as room there."""
    batch_kb: int = between(4, 1 << 20, 32768)
    """The most that one system call moves, in units of 1,024 bytes."""
    call_ms: float = between(0, 60_000, 0.0)
    """Limit on the duration of one system call; 0: no limit, or 20 with `gentle`."""
    gentle: bool = False
    """Short calls and one thread, unless `threads` is set."""
    freeze: bool = False
    """Freeze the processes' cgroups (version 2) while their memory moves."""
    policies: Policies = Policies.LEAVE
    """Whether memory policies that name old nodes are rebound to the new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySection:
    """[retry]: how often to retry pages that stayed for a reason that can pass."""

    attempts: int = between(1, 1000, 5)
    first_wait_s: float = between(0, 3600, 0.05)
    longest_wait_s: float = between(0, 3600, 2.0)
    give_up_s: float = between(0, 86_400, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    """[log]: log lines on standard error."""

    format: LogFormat = LogFormat.AUTO
    level: LogLevel = LogLevel.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginsSection:
    """[plugins]: third-party plug-ins."""

    third_party: bool = True
    """Whether installed packages are searched for plug-ins."""
    disabled: tuple[str, ...] = ()
    """Names of plug-ins (entry points) or of packages that are not loaded."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """[plugins.options.NAME]: what that plug-in understands. Loading plug-ins checks the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSection:
    """[journal]: the record of events, placements and reports, per job."""

    path: str = ""
    """Empty: /var/lib/schedhook/journal.db as root, else below $XDG_STATE_HOME."""
    keep_days: int = between(1, 36_500, 90)
    """Days after which records of ended jobs are deleted."""
    keep_per_job: int = between(10, 1_000_000, 1000)
    """The number of events and reports kept per job, and of placements per task. Older ones are
    deleted within the hour, so a job that changes all the time does not fill the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSection:
    """[agent]: the process that handles events from schedulers' hooks."""

    socket: str = field(default="/run/schedhook/agent.sock", metadata=NOT_EMPTY)
    spool: str = field(default="/var/spool/schedhook", metadata=NOT_EMPTY)
    """Where hooks leave events while no agent runs. The hooks' scripts need both paths, too."""
    workers: int = between(1, 256, 4)
    """The number of jobs whose events are handled at the same time."""
    retry_s: float = between(1, 86_400, 60.0)
    """Seconds after which a refused relocation is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSection:
    """[watch]: detection of changes that no hook reports."""

    schedulers: tuple[str, ...] = ()
    """The schedulers whose jobs to watch; empty: all whose adapters can list jobs."""
    interval_s: float = between(0.05, 3600, 1.0)
    """Seconds between two reads of the jobs' cpusets."""
    task_interval_s: float = between(0.05, 3600, 5.0)
    """Seconds between two reads of the tasks' affinity and state."""
    debounce_s: float = between(0, 3600, 0.5)
    """Seconds for which a change must last before it is acted on."""
    moves_at_once: int = between(1, 10_000, 3)
    """So many times a job's memory moves without a pause, for changes that no hook reports."""
    move_pause_s: float = between(0, 86_400, 30.0)
    """Seconds before the next such move; each one doubles the pause. 0: no pauses."""
    longest_move_pause_s: float = between(0, 86_400, 3600.0)
    """The longest of these pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLocalSection:
    """[keep_local]: how the agent brings off-node memory home where [actions] keep_local is set."""

    interval_s: float = between(1, 3600, 20.0)
    """Seconds between two looks at a job."""
    bandwidth_mb_s: float = between(0, 1_000_000, 500.0)
    """Maximum rate, in units of 1,000,000 bytes per second; 0: no limit."""
    host_daily_gb: int = between(0, 1 << 30, 1024)
    """What may move on the host within a day, in units of 1,073,741,824 bytes; 0: no limit."""
    job_daily: float = between(0, 1000, 4.0)
    """What may move of a job within a day, as a multiple of its memory; 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSection:
    """[metrics]: what the agent and the watcher export to Prometheus; nothing by default."""

    textfile: str = ending(".prom")
    """A file for node_exporter's textfile collector; its name must end in `.prom`."""
    interval_s: float = between(1, 3600, 15.0)
    """Seconds between two writes of the textfile."""
    socket: str = ""
    """A local socket that answers `GET /metrics`, such as /run/schedhook/metrics.sock."""
    group: str = ""
    """The group that may read from the socket; empty: only the agent's user and root."""
    listen: str = matching(
        r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z.-]+):"
        r"([1-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])",
        'an address and a port, such as "127.0.0.1:9793" or "[::1]:9793"',
    )
    """The TCP address at which the agent answers `GET /metrics`; empty: none."""
    certificate: str = needing("listen")
    """A PEM file with the certificate to use on `listen`; empty: no TLS. Read for each client."""
    key: str = needing("certificate")
    """A PEM file with its private key; empty: in the file of the certificate."""
    client_ca: str = needing("certificate")
    """A PEM file with the authorities of clients' certificates; empty: clients need none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration. `Config()` applies if there is no file."""

    relocation: RelocationSection = field(default_factory=RelocationSection)
    retry: RetrySection = field(default_factory=RetrySection)
    journal: JournalSection = field(default_factory=JournalSection)
    agent: AgentSection = field(default_factory=AgentSection)
    watch: WatchSection = field(default_factory=WatchSection)
    actions: ActionsSection = field(default_factory=ActionsSection)
    keep_local: KeepLocalSection = field(default_factory=KeepLocalSection)
    metrics: MetricsSection = field(default_factory=MetricsSection)
    log: LogSection = field(default_factory=LogSection)
    plugins: PluginsSection = field(default_factory=PluginsSection)
    source: Path | None = field(default=None, metadata=NOT_A_KEY)
    """The file that it was read from; None if there was none."""


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `path`, else the file that $SCHEDHOOK_CONFIG names, else /etc/schedhook/config.toml.

    Only the last may be missing. Raise ConfigError if the file cannot be read or used. As root,
    also raise it if another user may write the file, unless it was given as `path`.
    """
    named = path or (Path(environ[PATH_VARIABLE]) if environ.get(PATH_VARIABLE) else None)
    source = named or DEFAULT_PATH
    try:
        if path is None:
            _check(source)
        text = source.read_bytes().decode()
    except FileNotFoundError:
        if named is None:
            return Config()
        remedy = f"create it, or correct --config or ${PATH_VARIABLE}"
        raise ConfigError(f"{source}: no such configuration file; {remedy}") from None
    except OSError as error:
        remedy = "check what it is, its owner and its mode"
        raise ConfigError(f"{source}: cannot be read: {error.strerror}; {remedy}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return parse_config(text, source)


def _check(source: Path) -> None:
    """Check a file that no argument named: a hook must not wait for a pipe or obey other users."""
    status = source.stat()
    if stat.S_ISFIFO(status.st_mode):
        raise ConfigError(f"{source}: is a pipe, not a file; move it away")
    if os.geteuid() == 0 and (others := explain_untrusted(source, status)):
        raise ConfigError(f"{others}, so it is not trusted; run chown root and chmod go-w on it")


def parse_config(text: str, source: Path) -> Config:
    """Parse a configuration. Raise ConfigError, which names `source`, the key and the rule."""
    import tomllib  # noqa: PLC0415 - most hosts that run a hook have no file to read

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{source}: not TOML: nested too deeply") from None
    return replace(read_section(Config, table, str(source)), source=source)
