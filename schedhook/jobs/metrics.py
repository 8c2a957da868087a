"""Metrics for Prometheus: counters from the journal, and where jobs' memory lies now.

The journal keeps the counters, so it does not matter which process relocated, or whether it still
runs. Series with a `job` label exist only for jobs that are on the host at that moment. Needs the
optional prometheus-client, which is imported when it is first used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook import __version__
from schedhook.hook.spool import count_spool
from schedhook.host.topology import read_topology
from schedhook.jobs.footprint import Footprint, read_job
from schedhook.jobs.summary import JobSummary
from schedhook.journal.counters import BOUNDS, Series
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.files import replace_file
from schedhook.values.log import get_logger
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = get_logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
    "left_bytes": (
        "schedhook_left_bytes",
        "Bytes that relocations left on old nodes, by reason.",
        ("reason", "scheduler"),
    ),
}

_CACHE_SECONDS = 60.0
_PAUSE_FACTOR = 20.0
"""A reading is kept for at least this many times as long as it took."""


class FootprintCache:
    """Jobs' footprints, as `schedhook show` reads them, kept for a while.

    Reading walks page tables, during which a process that maps memory has to wait. So each
    scheduler's jobs are read once a minute at most, and for no more than a twentieth of the time.
    """

    def __init__(self) -> None:
        self._cached: dict[str, tuple[float, dict[str, Footprint]]] = {}
        """Scheduler → (when to read again, footprints by job)."""

    def read(self, adapter: Scheduler, jobs: Iterable[str], root: Path) -> Iterator[Footprint]:
        """Yield the footprints of those jobs that have processes here and can be read."""
        due, found = self._cached.get(adapter.name, (float("-inf"), {}))
        began = time.monotonic()
        if began >= due:
            found = {job: each for job in jobs if (each := _read_footprint(adapter, job, root))}
            ended = time.monotonic()
            due = max(began + _CACHE_SECONDS, ended + _PAUSE_FACTOR * (ended - began))
            self._cached[adapter.name] = (due, found)
        return (found[job] for job in jobs if job in found)


def _read_footprint(adapter: Scheduler, job: str, root: Path) -> Footprint | None:
    try:
        found = read_job(adapter, job, root)
        about = adapter.describe(job) if found else None
    except (SchedhookError, OSError, ValueError) as error:
        _log.debug("cannot read job's memory", job=job, problem=str(error))
        return None
    if found is None or not found.processes:
        return None
    return replace(found, summary=JobSummary(alias=about.alias if about else None))


def render_metrics(
    config: Config,
    plugins: Plugins,
    journal: Journal,
    root: Path = Path("/"),
    footprints: FootprintCache | None = None,
) -> bytes:
    """Return all metrics in Prometheus' text format; what cannot be read is logged and left out.

    A caller that renders again and again passes the same `footprints`. Raise SchedhookError if
    prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise SchedhookError(
            "metrics need prometheus-client: pip install 'schedhook[metrics]'"
        ) from None
    cache = footprints or FootprintCache()
    registry = CollectorRegistry()
    registry.register(
        _Collector(
            {
                "build": _build_metrics,
                "counters": partial(_counter_metrics, journal),
                "events": partial(_event_metrics, journal, Path(config.agent.spool)),
                "nodes": partial(_node_metrics, root),
                "jobs": partial(_job_metrics, config.watch.schedulers, plugins, cache, root),
            }
        )
    )
    return generate_latest(registry)


def write_textfile(path: Path, text: bytes) -> None:
    """Replace the file `path` atomically, readable by all users as node_exporter needs it.

    If `path` is a link, the link is replaced, not the file that it leads to. Raise SchedhookError.
    """
    try:
        replace_file(path, text)
    except OSError as error:
        raise SchedhookError(f"{path}: cannot be written: {error.strerror}") from error


class _Collector:
    """Gives the registry the metrics of several parts. One that fails is logged and left out."""

    def __init__(self, parts: Mapping[str, Callable[[], Iterable[Metric]]]) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Return nothing; otherwise the registry would collect once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        for name, part in self._parts.items():
            try:
                yield from part()
            except Exception as error:  # noqa: BLE001 - the other parts are still useful
                problem = describe_error(error)
                _log.warning("metrics left out", part=name, problem=problem)


def _build_metrics() -> Iterator[Metric]:
    yield _gauge("schedhook_build_info", "Always 1.", ("version",), {(__version__,): 1})


def _counter_metrics(journal: Journal) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    counters = journal.counters.read()
    for kind, (name, text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=labels)
        for series, value in sorted(counters.items()):
            if series[0] == kind:
                counter.add_metric(series[1:], value)
        yield counter
    yield _durations(counters)


def _durations(counters: Mapping[Series, float]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    text = "Duration of relocations that began to move memory, in seconds."
    family = HistogramMetricFamily("schedhook_relocation_seconds", text, labels=["strategy"])
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
    for name in schedulers or plugins.names(SchedulerPlugin):
        try:
            adapter = plugins.adapter(name, root)
            jobs = adapter.jobs()
            running[name,] = len(jobs)
            for each in footprints.read(adapter, jobs, root):
                series = (name, each.job or "", each.summary.alias or "")
                memory[series] = sum(each.residency.values())
                off_node[series] = each.bytes_off_node
        except PLUGIN_ERRORS as error:  # adapters are plug-ins
            problem = describe_error(error)
            _log.warning("scheduler left out", scheduler=name, problem=problem)
    labels = ("scheduler", "job", "alias")
    yield _gauge("schedhook_jobs", "Jobs on this host.", ("scheduler",), running)
    text = "Memory of a job's processes on this host."
    yield _gauge("schedhook_job_memory_bytes", text, labels, memory)
    text = "The part of a job's memory that is not on the nodes of the CPUs that use it."
    yield _gauge("schedhook_job_off_node_bytes", text, labels, off_node)


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Return a gauge with a value for each tuple of its labels' values."""
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(name, text, labels=labels)
    for series, value in values.items():
        gauge.add_metric(series, value)
    return gauge
