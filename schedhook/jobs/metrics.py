"""Metrics for Prometheus: counters from the journal, and where jobs' memory lies now.

The journal keeps the counters, so it does not matter which process relocated, or whether it still
runs. Series with a `jobid` label exist only for jobs that are on the host at that moment; `job` and
`instance` are labels that Prometheus itself gives. Needs the optional prometheus-client, which is
imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook import __version__
from schedhook.hook import delivery
from schedhook.hook.spool import count_spool
from schedhook.host.topology import read_topology
from schedhook.host.users import user_name
from schedhook.jobs.footprint_cache import FootprintCache
from schedhook.journal.counters import BOUNDS, Series
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.files import replace_file
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = get_logger()


class Format(Enum):
    """A format of metrics, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_COUNTERS = {
    "relocations": (
        "schedhook_relocations",
        "Relocations by outcome.",
        ("outcome", "strategy", "scheduler"),
    ),
    "moved_bytes": (
        "schedhook_moved_bytes",
        "Bytes moved by relocations.",
        ("strategy", "scheduler"),
    ),
    "avoided": (
        "schedhook_off_node_avoided_byte_seconds",
        "Bytes that keep_local brought home, times the seconds that they have been there.",
        ("scheduler",),
    ),
    "left_bytes": (
        "schedhook_left_bytes",
        "Bytes that relocations left on old nodes, by reason.",
        ("reason", "scheduler"),
    ),
}

_AGENT_SECONDS = 1.0
"""How long the agent may take to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What the metrics are read from; one object for as long as they are read again and again."""

    config: Config
    plugins: Plugins
    journal: Journal
    root: Path = Path("/")
    footprints: FootprintCache = field(default_factory=FootprintCache)

    def render(self, form: Format = Format.TEXT) -> bytes:
        """Return all metrics as text; what cannot be read is logged and left out.

        Raise SchedhookError if prometheus-client is not installed.
        """
        try:
            from prometheus_client import CollectorRegistry
            from prometheus_client.exposition import generate_latest
            from prometheus_client.openmetrics import exposition as openmetrics
        except ImportError:
            raise SchedhookError(
                "metrics need prometheus-client: pip install 'schedhook[metrics]', or your"
                " distribution's package python3-prometheus-client"
            ) from None
        registry = CollectorRegistry()
        registry.register(_Collector(self._parts()))
        generate = openmetrics.generate_latest if form is Format.OPENMETRICS else generate_latest
        return generate(registry)

    def _parts(self) -> dict[str, Callable[[], Iterable[Metric]]]:
        config = self.config
        schedulers = config.watch.schedulers or self.plugins.names(SchedulerPlugin)
        return {
            "build": _build_metrics,
            "agent": partial(_agent_metrics, config.agent.socket),
            "counters": partial(_counter_metrics, self.journal),
            "events": partial(_event_metrics, self.journal, Path(config.agent.spool)),
            "nodes": partial(_node_metrics, self.root),
            "jobs": partial(_job_metrics, schedulers, self.plugins, self.footprints, self.root),
        }


def write_textfile(path: Path, text: bytes) -> None:
    """Replace the file `path` atomically, readable by all users as node_exporter needs it.

    If `path` is a link, the link is replaced, not the file that it leads to. Raise SchedhookError.
    """
    try:
        replace_file(path, text)
    except OSError as error:
        remedy = "name a file in a directory that this user can write"
        raise SchedhookError(f"{path}: cannot be written: {error.strerror}; {remedy}") from error


class _Collector:
    """Gives the registry the metrics of several parts. One that fails is logged and left out."""

    def __init__(self, parts: Mapping[str, Callable[[], Iterable[Metric]]]) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Return nothing; otherwise the registry would collect once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        success = {}
        for name, part in self._parts.items():
            try:
                yield from part()
                success[name,] = 1
            except Exception as error:  # noqa: BLE001 - the other parts are still useful
                success[name,] = 0
                problem = describe_error(error)
                _log.warning("metrics left out", part=name, problem=problem)
        text = "Whether these metrics could be read."
        yield _gauge("schedhook_collector_success", text, ("collector",), success)


def _build_metrics() -> Iterator[Metric]:
    from prometheus_client.core import InfoMetricFamily

    yield InfoMetricFamily("schedhook_build", "Version.", value={"version": __version__})


def _agent_metrics(socket: str) -> Iterator[Metric]:
    text = "Whether an agent serves the schedulers' hooks on this host."
    yield _gauge("schedhook_agent_up", text, (), {(): _agent_answers(socket)})


def _agent_answers(socket: str) -> bool:
    try:
        delivery.send(b"", socket, 2 * _AGENT_SECONDS, False, _AGENT_SECONDS)
    except delivery.Refused:  # an agent refuses an empty message
        return True
    except delivery.NotDelivered:
        pass
    return False


def _counter_metrics(journal: Journal) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    counters = journal.counters.read()
    for kind, (name, text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=labels, unit=_unit(name))
        for series, value in sorted(counters.items()):
            if series[0] == kind:
                counter.add_metric(series[1:], value)
        yield counter
    yield _durations(counters)


def _durations(counters: Mapping[Series, float]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    text = "Duration of relocations that began to move memory, in seconds."
    name = "schedhook_relocation_seconds"
    family = HistogramMetricFamily(name, text, labels=["strategy"], unit=_unit(name))
    for kind, *rest in sorted(counters):
        if kind == "seconds_sum":
            (strategy,) = rest
            buckets, count = [], 0.0
            for bound in BOUNDS:
                count += counters.get(("seconds", strategy, bound), 0)
                buckets.append((bound, count))
            family.add_metric([strategy], buckets, counters[kind, strategy])
    return family


def _event_metrics(journal: Journal, spool: Path) -> Iterator[Metric]:
    counts = journal.counts()
    text = "Events in the journal that are not handled yet."
    yield _gauge("schedhook_events_waiting", text, (), {(): counts.unfinished_events})
    text = "Damaged rows of the journal, which were set aside."
    yield _gauge("schedhook_journal_damaged_rows", text, (), {(): counts.damaged})
    text = "Events in the spool; a running agent reads them within a second."
    yield _gauge("schedhook_events_spooled", text, (), {(): count_spool(spool)})


def _node_metrics(root: Path) -> Iterator[Metric]:
    topology = read_topology(root)
    free = {(str(n),): topology.node(n).memory_free for n in topology.memory_nodes}
    yield _gauge("schedhook_node_free_bytes", "Free memory of a node.", ("node",), free)


def _job_metrics(
    schedulers: Iterable[str], plugins: Plugins, footprints: FootprintCache, root: Path
) -> Iterator[Metric]:
    running: dict[Series, float] = {}
    memory: dict[Series, float] = {}
    off_node: dict[Series, float] = {}
    for name in schedulers:
        try:
            adapter = plugins.adapter(name, root)
            jobs = adapter.jobs()
            running[name,] = len(jobs)
            for each in footprints.read(adapter, jobs, root):
                about = each.summary
                series = (name, each.job or "", about.alias or "", user_name(about.user))
                memory[series] = sum(each.residency.values())
                off_node[series] = each.bytes_off_node
        except PLUGIN_ERRORS as error:  # adapters are plug-ins
            problem = describe_error(error)
            _log.warning("scheduler left out", scheduler=name, problem=problem)
    labels = ("scheduler", "jobid", "alias", "user")
    yield _gauge("schedhook_jobs", "Jobs on this host.", ("scheduler",), running)
    text = "Memory of a job's processes on this host."
    yield _gauge("schedhook_job_memory_bytes", text, labels, memory)
    text = "The part of a job's memory that is not on the nodes of the CPUs that use it."
    yield _gauge("schedhook_job_off_node_bytes", text, labels, off_node)


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Return a gauge with a value for each tuple of its labels' values."""
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(name, text, labels=labels, unit=_unit(name))
    for series, value in values.items():
        gauge.add_metric(series, value)
    return gauge


def _unit(name: str) -> str:
    """Return the unit that a metric's name ends with, for OpenMetrics; empty if it has none."""
    ending = name.rpartition("_")[2]
    return ending if ending in ("bytes", "seconds") else ""
