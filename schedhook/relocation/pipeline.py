"""The pipeline that every entry goes through: plan, refuse or move, verify, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from schedhook.control.affinity import Binding
from schedhook.control.freezer import cgroups_to_freeze, freezing
from schedhook.control.rollback import Rollback, recover
from schedhook.host.topology import Topology
from schedhook.host.vanishing import read_living
from schedhook.jobs.lookup import find_pids
from schedhook.migration.move import Move, MoveOptions, MovingProcess
from schedhook.migration.retry import RetryPolicy
from schedhook.migration.selection import ProcessSelection, Selection
from schedhook.migration.throttle import place_threads
from schedhook.plugins.manager import Plugins
from schedhook.relocation.plan import check_nodes, check_online, make_plan
from schedhook.relocation.verify import judge, verify
from schedhook.roles.backend import Backend, Limits, Target
from schedhook.roles.request import Request
from schedhook.roles.strategy import PageChoice
from schedhook.values.config import Config
from schedhook.values.errors import (
    PLUGIN_ERRORS,
    KernelThreadError,
    NoPermissionError,
    PluginError,
    ProcessGoneError,
    RefusedError,
    SchedhookError,
    UsageError,
)
from schedhook.values.model import (
    NodeMap,
    Outcome,
    Plan,
    ProcessReport,
    Reason,
    Report,
)
from schedhook.values.sets import CpuSet, NodeSet

_GENTLE_CALL_MS = 20.0
_MIB = 1 << 20
_RESCANS = 3
"""Further looks for processes and pages that appeared during the move."""
Progress = Callable[[int, int], None]
"""Called with (bytes moved so far, bytes planned), from several threads, never at one time."""


def relocate(
    request: Request,
    config: Config,
    plugins: Plugins,
    *,
    root: Path = Path("/"),
    progress: Progress | None = None,
) -> Report:
    """Carry out, or with `dry_run` only plan, a relocation.

    Whatever happens after the request was understood comes back as a report: a refusal, and also
    a failure in mid-move, with what had moved by then. UsageError and PluginError for a request
    that cannot be understood; ProcessGoneError where a process that was named does not exist.
    """
    return _Relocation(request, config, plugins, root, progress).run()


class _Relocation:
    def __init__(
        self,
        request: Request,
        config: Config,
        plugins: Plugins,
        root: Path,
        progress: Progress | None,
    ) -> None:
        self._request = request
        self._config = config
        self._plugins = plugins
        self._root = root
        self._progress = progress
        defaults = config.relocation
        self._strategy = plugins.strategy(request.strategy or defaults.strategy)
        self._backend_name = request.backend or defaults.backend
        self._backend: Backend = plugins.backend(self._backend_name).create(root)
        self._selection = Selection(
            kinds=request.kinds or frozenset(defaults.kinds),
            shared=request.shared or defaults.shared,
            may_move_shared=self._backend.may_move_shared(),
        )
        self._attached: dict[int, MovingProcess] = {}
        self._ended: list[MovingProcess] = []
        """Those whose numbers newcomers have got."""
        self._notes: list[str] = []
        self._guard = Rollback()
        self._binding = Binding(self._guard, root)

    def run(self) -> Report:
        began = time.monotonic()
        if recover():
            self._notes.append("a relocation had been killed: what it left was put back first")
        with ExitStack() as stack:
            stack.enter_context(self._guard)
            report = self._relocate(stack)
            self._guard.forget()
        return replace(report, seconds=time.monotonic() - began)

    def _relocate(self, stack: ExitStack) -> Report:
        request = self._request
        topology = self._backend.topology()
        has_one_node = len(topology.memory_nodes) == 1
        try:
            self._attach(stack, self._named_pids(), must_exist=bool(request.pids))
        except RefusedError as refusal:
            if not has_one_node:  # else no right to move is needed
                self._notes.append(str(refusal))
                return self._report(Outcome.REFUSED, request.node_map or NodeMap(pairs={}))
        if has_one_node:
            self._notes.append(
                f"this host has one NUMA node with memory ({topology.memory_nodes}):"
                " there is nowhere to move to"
            )
            return self._report(Outcome.NOTHING_TO_DO, request.node_map or NodeMap(pairs={}))
        node_map = self._map_nodes(topology)
        check_nodes(node_map, topology)
        if node_map.note:
            self._notes.append(node_map.note)

        move = self._move(node_map, topology)
        self._look(stack, move)
        self._note_swap()
        self._notes += [
            f"process {process.pid} has no memory of its own: it runs in that of process"
            f" {process.memory_owner_pid}, where it is counted"
            for process in move.processes
            if process.memory_owner_pid is not None
        ]
        if self._strategy.choose_nodes:
            outcome = self._decide(move, self._strategy.choose_nodes)
            if outcome is not None:
                return self._report(outcome, node_map)
        plan = make_plan(
            processes=move.processes,
            node_map=node_map,
            topology=topology,
            caller_nodes=self._backend.allowed_nodes(),
            reserve=self._reserve(),
            strategy=self._strategy.name,
            backend=self._backend_name,
            job=request.job,
            force=request.force,
            changes_cpuset=self._strategy.changes_cpuset,
        )
        plan = replace(plan, refusal=plan.refusal or self._objection(move))
        if plan.refusal:
            self._notes.append(plan.refusal)
            return self._planned(Outcome.REFUSED, plan)
        if request.dry_run:
            return self._planned(Outcome.PLANNED, plan)
        return self._carry_out(stack, move, plan)

    # -- before ----------------------------------------------------------------------------------

    def _note_swap(self) -> None:
        total = 0
        for process in self._attached.values():
            with suppress(ProcessGoneError):
                total += process.target.swapped()
        if total:
            self._notes.append(
                f"{total / _MIB:.1f} MiB are in swap, on no node, and not counted: they come back"
                " to the nodes that the process may use then"
            )

    def _decide(self, move: Move, choose_nodes: Callable[[Move], PageChoice]) -> Outcome | None:
        """Have a strategy decide page by page; the outcome where that ends the relocation."""
        try:
            choose = choose_nodes(move)
            if self._request.guidance is not None:
                choose = self._request.guidance.watch(choose)
            move.plan_pages(choose)
        except RefusedError as refusal:
            self._notes.append(str(refusal))
            return Outcome.REFUSED
        except SchedhookError:
            raise
        except PLUGIN_ERRORS as error:  # a strategy is a plug-in and may do anything
            self._notes.append(self._strategy_failed(error))
            return Outcome.FAILED
        return None

    def _strategy_failed(self, error: BaseException) -> str:
        return f"strategy {self._strategy.name!r} failed: {type(error).__name__}: {error}"

    def _named_pids(self) -> list[int]:
        return list(dict.fromkeys([*self._request.pids, *self._member_pids()]))

    def _member_pids(self) -> Iterable[int]:
        """Who has come to the cgroup or job by now, unless some of a job were named."""
        if self._request.cgroup is not None or not self._request.pids:
            yield from self._listed_pids()

    def _listed_pids(self) -> Iterable[int]:
        request = self._request
        if request.cgroup is not None:
            return self._backend.cgroup_pids(request.cgroup)
        if request.job is not None:
            return find_pids(self._plugins, request.job, request.scheduler, self._root)
        return ()

    def _attach(self, stack: ExitStack, pids: Iterable[int], *, must_exist: bool) -> None:
        found = dict[int, Target]()
        for pid in pids:
            known = self._attached.get(pid)
            if known is not None and known.target.alive():
                continue
            try:
                found[pid] = stack.enter_context(self._backend.attach(pid))
            except ProcessGoneError:
                if must_exist and pid in self._request.pids:
                    raise
            except KernelThreadError:
                if pid in self._request.pids and self._request.job is None:
                    raise  # else it is one of a virtual machine's cgroup, or of the topmost one
        for pid, target in self._members(found):
            if pid in self._attached:
                self._ended.append(self._attached[pid])
            nothing = ProcessSelection(residency={}, selected=(), kept={})
            self._attached[pid] = MovingProcess(target=target, selection=nothing)

    def _members(self, found: Mapping[int, Target]) -> Iterable[tuple[int, Target]]:
        """Those that still belong to what the request names: between being listed and being held,
        a number can have become a stranger's."""
        request = self._request
        of_a_job = request.job is not None and request.scheduler is not None
        sure = found.keys() & (() if of_a_job else request.pids)
        if len(sure) < len(found):
            with suppress(UsageError):  # the cgroup, or the job, has ended meanwhile
                sure = sure | set(self._listed_pids())
        return [(pid, target) for pid, target in found.items() if pid in sure]

    def _map_nodes(self, topology: Topology) -> NodeMap:
        request = self._request
        if request.node_map is not None:
            return request.node_map
        destinations = request.destinations
        if request.cpus is not None and (missing := request.cpus - topology.cpus):
            raise UsageError(
                f"no processor {missing} is online on this host;"
                f" the online processors are {topology.cpus}"
            )
        if destinations is None and request.cpus is not None:
            destinations = topology.memory_nodes_of(request.cpus)
        sources = request.sources
        if sources is None and request.cpus is not None:
            sources = self._bound_nodes(topology)
        if self._strategy.choose_nodes and sources is None and destinations is None:
            return NodeMap(pairs={}, mapper="by-page")
        if sources is None or destinations is None:
            raise UsageError("say where from and where to: --from and --to, or --map, or --cpus")
        mapper = self._plugins.mapper(request.mapper or self._config.relocation.mapper)
        check_online(sources | destinations, topology)  # a mapper works long on 65,536 nodes
        node_map = mapper.map(sources, destinations, topology)
        outside = NodeSet(node_map.pairs.values()) - destinations
        if outside - sources or sources - NodeSet(node_map.pairs):
            raise PluginError(
                f"the mapper {mapper.name!r} gave the map {node_map}, which does not lead from"
                f" {sources} into {destinations}"
            )
        return replace(node_map, mapper=mapper.name)

    def _bound_nodes(self, topology: Topology) -> NodeSet:
        """The nodes that have memory for the processors that the processes may use now."""
        from schedhook.host.processes import read_status  # noqa: PLC0415

        cpus = CpuSet()
        for _, status in read_living(self._attached, lambda pid: read_status(pid, self._root)):
            cpus = cpus | status.allowed_cpus
        return topology.memory_nodes_of(cpus)

    def _reserve(self) -> int:
        if self._request.reserve is not None:
            return self._request.reserve
        return self._config.relocation.reserve_mb << 20

    def _objection(self, move: Move) -> str | None:
        """Why the strategy cannot carry out the plan."""
        if self._strategy.check is None:
            return None
        try:
            self._strategy.check(move)
        except RefusedError as refusal:
            return str(refusal)
        except SchedhookError:
            raise
        except PLUGIN_ERRORS as error:  # a strategy is a plug-in and may do anything
            return self._strategy_failed(error)
        return None

    def _move(self, node_map: NodeMap, topology: Topology) -> Move:
        request, config = self._request, self._config.relocation
        retry = self._config.retry
        gentle = config.gentle if request.gentle is None else request.gentle
        new = request.cpus or topology.cpus_of(node_map.destinations)
        threads, cpus = place_threads(
            request.threads or config.threads or int(gentle),
            new,
            topology.cpus_of(node_map.sources),
        )
        call_ms = config.call_ms or (_GENTLE_CALL_MS if gentle else 0)
        bandwidth = (
            request.bandwidth_mb_s if request.bandwidth_mb_s is not None else config.bandwidth_mb_s
        )
        return Move(
            backend=self._backend,
            node_map=node_map,
            processes=self._attached.values(),
            selection=self._selection,
            sources=None if node_map.pairs else topology.memory_nodes,
            guidance=request.guidance,
            members=self._named_pids,
            cgroup=request.cgroup,
            settings=self._config.plugins.options.get(self._strategy.name),
            root=self._root,
            options=MoveOptions(
                threads=threads,
                cpus=cpus,
                bandwidth=bandwidth * 1e6,
                limits=Limits(batch_bytes=config.batch_kb << 10, call_seconds=call_ms / 1e3),
                retry=RetryPolicy(
                    attempts=retry.attempts,
                    first_wait=retry.first_wait_s,
                    longest_wait=retry.longest_wait_s,
                    give_up=retry.give_up_s,
                ),
                reserve=self._reserve(),
                sweep_leftovers=request.sweep_leftovers,
            ),
        )

    # -- the move --------------------------------------------------------------------------------

    def _carry_out(self, stack: ExitStack, move: Move, plan: Plan) -> Report:
        for process in move.processes:
            process.before = process.selection
        kept = _sum(its.kept for its in plan.processes)
        try:
            to_freeze = self._cgroups_to_freeze()
            self._plugins.notify("schedhook_before_migrate", plan=plan)
            if self._request.cpus is not None:
                targets = [process.target for process in move.processes]
                self._binding.bind(targets, self._request.cpus)
        except RefusedError as refusal:
            self._binding.undo()
            self._notes.append(str(refusal))
            return self._planned(Outcome.REFUSED, plan)
        failure: str | None = None
        try:
            if plan.bytes_planned:
                if self._progress:
                    move.report_progress(self._progress, plan.bytes_planned)
                with freezing(to_freeze, self._guard):
                    if self._strategy.move:
                        self._strategy.move(move)
                        self._follow(stack, move)
                    else:
                        move.carry_out()
        except SchedhookError as error:
            failure = str(error)
        except PLUGIN_ERRORS as error:  # a strategy is a plug-in and may do anything
            failure = self._strategy_failed(error)
        self._notes += move.notes
        if failure is not None:
            self._binding.undo()
            self._notes.append(failure)
        report = replace(self._verified(move, kept, failure), job=plan.job, attempts=move.attempts)
        self._plugins.notify("schedhook_after_migrate", report=report)
        return report

    def _cgroups_to_freeze(self) -> list[Path]:
        request = self._request
        wanted = self._config.relocation.freeze if request.freeze is None else request.freeze
        if not wanted:
            return []
        targets = [process.target for process in self._attached.values()]
        return cgroups_to_freeze(targets, request.cgroup, self._root)

    def _follow(self, stack: ExitStack, move: Move) -> None:
        """Processes and pages that appeared during the move are moved too, in bounded rounds."""
        if move.node_map.overlaps:
            return  # nobody could tell what appeared from what arrived
        for _ in range(_RESCANS):
            self._look(stack, move)
            late = [process for process in move.processes if _appeared(process, move) > 0]
            known = set(map(id, self._attached.values()))
            with suppress(UsageError):  # the cgroup, or the job, has ended meanwhile
                self._attach(stack, self._member_pids(), must_exist=False)
            move.processes = list(self._attached.values())
            late += [process for process in move.processes if id(process) not in known]
            if not late or not move.options.sweep_leftovers:
                return
            move.sweep(late)
        self._look(stack, move)

    def _look(self, stack: ExitStack, move: Move) -> None:
        """Read where the memory lies by now, also of those that have become other programs."""
        move.look()
        for process in self._attached.values():
            if not process.gone or not process.target.alive():
                continue
            with suppress(ProcessGoneError, NoPermissionError):
                target = stack.enter_context(self._backend.attach(process.pid))
                if process.target.alive():  # so the number still meant the same process
                    move.renew(process, target)
                    self._notes.append(f"process {process.pid} became another program meanwhile")
        move.look()

    # -- after -----------------------------------------------------------------------------------

    def _verified(
        self,
        move: Move,
        kept: Mapping[str, int],
        failure: str | None,
    ) -> Report:
        """What residency shows when it is read again; only that is reported."""
        processes, by_reason = verify(move, self._ended, failure)
        everybody = [*move.processes, *self._ended]
        self._notes += [each.target.mistaken for each in everybody if each.target.mistaken]
        moved = sum(each.bytes_moved for each in processes)
        stayed = sum(by_reason.values())
        return replace(
            self._report(judge(moved, by_reason, failure), move.node_map),
            bytes_planned=moved + stayed,
            bytes_moved=moved,
            bytes_left=stayed,
            left_by_reason=by_reason,
            kept=kept,
            processes=tuple(processes),
        )

    def _planned(self, outcome: Outcome, plan: Plan) -> Report:
        if outcome is Outcome.PLANNED and not plan.bytes_planned:
            sources = plan.node_map.sources
            self._notes.append(
                f"nothing lies on node {sources}"
                if sources
                else "the strategy leaves every page where it is"
            )
        reasons = {Reason.SKIPPED.value: plan.bytes_planned} if plan.bytes_planned else {}
        return replace(
            self._report(outcome, plan.node_map),
            bytes_planned=plan.bytes_planned,
            bytes_left=plan.bytes_planned,
            left_by_reason=reasons,
            kept=_sum(its.kept for its in plan.processes),
            processes=tuple(
                ProcessReport(
                    pid=its.pid,
                    command=its.command,
                    residency_before=its.residency,
                    residency_after=its.residency,
                    bytes_moved=0,
                    bytes_left=its.bytes_planned,
                    error=its.error,
                )
                for its in plan.processes
            ),
            plan=plan,
        )

    def _report(self, outcome: Outcome, node_map: NodeMap) -> Report:
        return Report(
            outcome=outcome,
            strategy=self._strategy.name,
            backend=self._backend_name,
            node_map=node_map,
            job=self._request.job,
            notes=tuple(self._notes),
        )


def _appeared(process: MovingProcess, move: Move) -> int:
    found = sum(process.selection.on(move.node_map.sources).values())
    return found - sum(process.left.values())


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for key, size in part.items():
            total[key] = total.get(key, 0) + size
    return total
