"""What Prometheus gets to see: sums from the journal, and where jobs' memory lies now.

The sums are the journal's, so it does not matter which process relocated, or whether it still
runs. Series with a job in their labels exist for the jobs that are on the host at that moment.
Needs the optional prometheus-client, which is imported when it is first used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook import __version__
from schedhook.hook.spool import count_spool
from schedhook.host.topology import read_topology
from schedhook.jobs.footprint import Footprint, read_job
from schedhook.journal.counters import BOUNDS, Series
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS, SchedhookError
from schedhook.values.files import replace_file
from schedhook.values.log import get_logger

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = get_logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "relocations": (
        "schedhook_relocations",
        "Relocations, by how they ended.",
        ("outcome", "strategy", "scheduler"),
    ),
    "moved_bytes": (
        "schedhook_moved_bytes",
        "Bytes that relocations have moved.",
        ("strategy", "scheduler"),
    ),
    "left_bytes": (
        "schedhook_left_bytes",
        "Bytes that relocations had to leave on old nodes, by reason.",
        ("reason", "scheduler"),
    ),
}


_SECONDS = 60.0
_REST = 20.0


class Footprints:
    """Jobs' footprints, as `schedhook show` has them. Reading them walks page tables, and a process
    that maps memory meanwhile has to wait: so it is done once a minute at most, and for no more
    than a twentieth of the time."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, dict[str, Footprint]]] = {}

    def read(self, adapter: Scheduler, jobs: Iterable[str], root: Path) -> Iterator[Footprint]:
        """Those of these jobs that have processes here. What cannot be read is left out."""
        due, found = self._of.get(adapter.name, (float("-inf"), {}))
        began = time.monotonic()
        if began >= due:
            found = {job: each for job in jobs if (each := _footprint(adapter, job, root))}
            ended = time.monotonic()
            due = max(began + _SECONDS, ended + _REST * (ended - began))
            self._of[adapter.name] = (due, found)
        return (found[job] for job in jobs if job in found)


def _footprint(adapter: Scheduler, job: str, root: Path) -> Footprint | None:
    try:
        found = read_job(adapter, job, root)
    except (SchedhookError, OSError, ValueError) as error:
        _log.debug("job not measured", job=job, problem=str(error))
        return None
    return found if found and found.processes else None


def exposition(
    config: Config,
    plugins: Plugins,
    journal: Journal,
    root: Path = Path("/"),
    footprints: Footprints | None = None,
) -> bytes:
    """All metrics in Prometheus' text format. What cannot be read is logged and left out. Whoever
    calls it again and again keeps the `footprints`.

    SchedhookError where prometheus-client is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise SchedhookError(
            "metrics need prometheus-client: pip install 'schedhook[metrics]'"
        ) from None
    registry = CollectorRegistry()
    registry.register(_Collector(config, plugins, journal, root, footprints or Footprints()))
    return generate_latest(registry)


def write_textfile(path: Path, text: bytes) -> None:
    """Put `text` in the place of `path` in one step, readable by all, as node_exporter wants it;
    nothing that lies there is followed or written to. SchedhookError."""
    try:
        replace_file(path, text)
    except OSError as error:
        raise SchedhookError(f"{path}: cannot be written: {error.strerror}") from error


class _Collector:
    """What is exposed, read anew each time."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        journal: Journal,
        root: Path,
        footprints: Footprints,
    ) -> None:
        self._footprints = footprints
        self._config = config
        self._plugins = plugins
        self._journal = journal
        self._root = root

    def describe(self) -> list[Metric]:
        """Nothing: the registry would else collect once in order to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        for part in (self._build, self._totals, self._waiting, self._nodes, self._jobs):
            try:
                yield from part()
            except Exception as error:  # noqa: BLE001 - the rest is worth having
                problem = f"{type(error).__name__}: {error}"
                _log.warning("metrics left out", part=part.__name__[1:], problem=problem)

    def _build(self) -> Iterable[Metric]:
        yield _gauge("schedhook_build_info", "Always 1.", ("version",), {(__version__,): 1})

    def _totals(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily

        totals = self._journal.counters.read()
        for kind, (name, text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=labels)
            for series, value in sorted(totals.items()):
                if series[0] == kind:
                    counter.add_metric(series[1:], value)
            yield counter
        yield _durations(totals)

    def _waiting(self) -> Iterable[Metric]:
        counts = self._journal.counts()
        waiting = {(): counts.unfinished_events}
        yield _gauge("schedhook_events_waiting", "Events not handled yet.", (), waiting)
        text = "Rows of the journal that could not be understood, and were set aside."
        yield _gauge("schedhook_journal_damaged_rows", text, (), {(): counts.damaged})
        spooled = count_spool(Path(self._config.agent.spool))
        text = "Events in the spool, which an agent that runs takes within a second."
        yield _gauge("schedhook_events_spooled", text, (), {(): spooled})

    def _nodes(self) -> Iterable[Metric]:
        topology = read_topology(self._root)
        free = {(str(n),): topology.node(n).memory_free for n in topology.memory_nodes}
        yield _gauge("schedhook_node_free_bytes", "Free bytes of a node.", ("node",), free)

    def _jobs(self) -> Iterable[Metric]:
        running: dict[Series, float] = {}
        memory: dict[Series, float] = {}
        outside: dict[Series, float] = {}
        for name in self._config.watch.schedulers or self._plugins.names(SchedulerPlugin):
            try:
                adapter = self._plugins.scheduler(name).create(self._root)
                jobs = adapter.jobs()
                running[name,] = len(jobs)
                for each in self._footprints.read(adapter, jobs, self._root):
                    memory[name, each.job or ""] = sum(each.residency.values())
                    outside[name, each.job or ""] = each.bytes_off_node
            except PLUGIN_ERRORS as error:  # adapters are plug-ins
                problem = f"{type(error).__name__}: {error}"
                _log.warning("scheduler left out", scheduler=name, problem=problem)
        of, labels = ("scheduler",), ("scheduler", "job")
        yield _gauge("schedhook_jobs", "Jobs on this host.", of, running)
        text = "Memory of a job's processes on this host."
        yield _gauge("schedhook_job_memory_bytes", text, labels, memory)
        text = "The part of it that is not beside the processors that use it."
        yield _gauge("schedhook_job_off_node_bytes", text, labels, outside)


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """`values` by the labels' values."""
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(name, text, labels=labels)
    for series, value in values.items():
        gauge.add_metric(series, value)
    return gauge


def _durations(totals: dict[Series, float]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    text = "How long relocations that moved something took."
    family = HistogramMetricFamily("schedhook_relocation_seconds", text, labels=["strategy"])
    for kind, *rest in sorted(totals):
        if kind == "seconds_sum":
            (strategy,) = rest
            buckets, count = [], 0.0
            for bound in BOUNDS:
                count += totals.get(("seconds", strategy, bound), 0)
                buckets.append((bound, count))
            family.add_metric([strategy], buckets, totals[kind, strategy])
    return family
