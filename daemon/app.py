"""The daemon: puts the parts together, runs them on one event loop, and takes them apart again in order."""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import zmq

from devd.daemon import early_signals
from devd.daemon import events as ev
from devd.daemon.cdi_desk import SCRIBE_ID, CdiDesk
from devd.daemon.cgroups import Cgroups
from devd.daemon.charge import Listeners
from devd.daemon.config import Config, ConfigError, collisions, load
from devd.daemon.control_desk import ControlDesk
from devd.daemon.endpoint import endpoint_directory
from devd.daemon.errors import StartupError
from devd.daemon.fleet import Fleet
from devd.daemon.health_feed import HealthFeed
from devd.daemon.heap_watch import HeapWatch
from devd.daemon.journal import WorkerJournal
from devd.daemon.kubelet_watch import KubeletWatch
from devd.daemon.logs import StderrHandler, set_up_logging
from devd.daemon.memory import here
from devd.daemon.memory_keeper import MemoryKeeper
from devd.daemon.memory_store import MemoryStore
from devd.daemon.metrics.collect import page as metrics_page
from devd.daemon.metrics.process import OwnProcess
from devd.daemon.metrics.server import MetricsServer
from devd.daemon.notify import Notifier
from devd.daemon.occupancy import Occupied
from devd.daemon.options import RunOptions
from devd.daemon.pod_resources import PodResources
from devd.daemon.prestart import PreStartDesk
from devd.daemon.readiness import unready
from devd.daemon.reload import Reloader, overridden
from devd.daemon.reset_orders import ResetOrders
from devd.daemon.rpc_times import RpcTimes
from devd.daemon.runtime_lock import RuntimeLock
from devd.daemon.scout_feed import SCOUT_PREFIX
from devd.daemon.status import StatusReport
from devd.daemon.supervisor import Supervisor
from devd.daemon.watchdog import Watchdog
from devd.ipc.control import ControlServer
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.errors import EndpointError
from devd.ipc.health import HealthSubscriber
from devd.ipc.identity import PeerAuthenticator
from devd.ipc.messages import Device, Listing, Written

WORKERS_LEAVE_WITHIN_S = 2.5
ENDPOINTS_LEAVE_WITHIN_S = 1.0
FORK_SERVER_LEAVES_WITHIN_S = 0.5
DISKS_WITHIN_S = 1.0
"""Bounds of the steps of an orderly end; together under the 5 s an end may take."""

MAX_SOCKETS = 65_535
"""Of the ZeroMQ context: one for each worker and a few of our own; libzmq's default is 1,023."""

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphaned descendants become this process's children."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2

log = logging.getLogger("devd")
kubelet_log = logging.getLogger("devd.kubelet")


def run(options: RunOptions) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the process's exit code."""
    handler = set_up_logging(options.log_format, options.log_level)
    try:
        config = load(options.config)
    except ConfigError as error:
        for line in error.render().splitlines():
            log.error("%s", line)
        return EXIT_CONFIG
    config = overridden(config, options)
    for warning in collisions(config):
        log.warning("%s", warning)
    early_signals.hold_back()
    try:
        with RuntimeLock(RuntimeLayout(options.runtime_dir, options.control_group)) as layout:
            _spare_what_stays()
            code = asyncio.run(Daemon(config, options, layout, handler).run())
            # Whoever still hurries the end has it already.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return code
    except (StartupError, EndpointError) as error:
        log.error("devd cannot start: %s", error)
        return EXIT_FAILED


class Daemon:
    """All parts of one running devd."""

    def __init__(self, config: Config, options: RunOptions, layout: RuntimeLayout, handler: StderrHandler) -> None:
        self._log = handler
        self._config = config
        self._options = options
        self._layout = layout
        self._ended = asyncio.Event()
        self._signals = 0
        self._failed = False
        self._journal = WorkerJournal(options.log_dir)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        # Sockets that were closed with something unsent must not hold up the end.
        self._context.setsockopt(zmq.LINGER, 0)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._changed = asyncio.Event()
        self._times = RpcTimes()

    async def run(self) -> int:
        """Run until told to end."""
        loop = asyncio.get_running_loop()
        for number in early_signals.ENDS:
            loop.add_signal_handler(number, self._end_asked, number)
        for held in early_signals.held_back():
            self._end_asked(held)
        self._notifier = Notifier(loop, lambda: self._fleet.settled, self._in_short)
        self._watchdog = Watchdog(loop)
        _become_subreaper()
        _raise_descriptor_limit()
        # First of all: a state directory that another devd holds is the end of it.
        memory = MemoryStore(self._options.state_dir, here())
        loaded = await asyncio.to_thread(memory.load)
        self._memory = memory
        if self._ended.is_set():
            return self._ended_early()
        self._auth = PeerAuthenticator(self._context)
        loop.add_reader(self._auth.fd, self._authenticate)
        bus = HealthSubscriber(self._context, self._layout.health)
        tell = Listeners(
            self._device_changed,
            self._device_turned,
            self._forgotten,
            self._journal.forget,
            self._listed,
            self._answered,
            self._respects,
            self._journal_line,
            greeted=self._greeted,
            wrote=self._wrote,
        )
        self._supervisor = Supervisor(
            loop,
            self._context,
            self._layout,
            self._auth,
            tell,
            lambda fences: MemoryKeeper(memory, loaded, fences, _serves_devd),
            Cgroups.here() if self._options.cgroup else Cgroups(None),
        )
        loop.add_signal_handler(signal.SIGCHLD, self._supervisor.workforce.reap)
        self._feed = HealthFeed(loop, bus, self._supervisor.turns, self._supervisor.reported, self._misbehaved)
        self._supervisor.on_stall(self._feed.drain)
        self._pods = PodResources(self._config.kubelet.pod_resources_socket)
        self._desk = PreStartDesk(self._ask_pre_start, self._expire_pre_start, self._pods.ask, self._find)
        self._cdi = CdiDesk(loop, self._supervisor, self._options.cdi_dir, self._config.resources, self._renamed)
        watch = KubeletWatch(endpoint_directory(self._config.kubelet), log=kubelet_log)
        self._fleet = Fleet(
            self._config, self._supervisor, self._desk, self._cdi, watch, self._times, self._serving_failed
        )
        self._status = StatusReport(
            self._supervisor, self._fleet.scouts, self._fleet.tables, self._fleet.endpoints, self._cdi, self._facts()
        )
        control = ControlServer(self._context, self._layout.control, group=self._layout.group)
        self._reload = Reloader(self._options, loop, self._fleet, self._notifier)
        loop.add_signal_handler(signal.SIGHUP, self._reload.ask)
        self._control = ControlDesk(
            loop,
            control,
            self._supervisor,
            self._build_status,
            lambda: unready(self._fleet.endpoints, self._fleet.problems, self._fleet.undiscovered),
            self._reload.ask,
            ResetOrders(self._fleet.tables),
            group=self._layout.group is not None,
        )
        self._heap = HeapWatch(loop, self._supervisor.workforce, self._layout, self._misbehaved, self._control.cut)
        self._metrics = await self._start_metrics()
        log.info("devd %s runs %d resources", os.getpid(), len(self._fleet.tables), extra={"event": "start"})
        watch.start()
        self._fleet.start()
        self._notifier.start()
        await self._ended.wait()
        self._notifier.close()
        await self._take_apart()
        watch.close()
        await self._close(bus)
        self._watchdog.close()
        return EXIT_FAILED if self._failed else EXIT_OK

    # ---- serving ----

    def _serving_failed(self) -> None:
        """End: a resource of the configuration devd was started with cannot be served."""
        self._failed = True
        self._ended.set()

    # ---- who tells whom ----

    def _device_changed(self, device: str) -> None:
        self._wake()
        charge = self._supervisor.get(device)
        if charge is not None and device.startswith(SCOUT_PREFIX):
            self._fleet.scouts.scout_changed(charge.resource)
        elif charge is not None and not _serves_devd(device):
            self._fleet.scouts.changed(charge.resource)

    def _device_turned(self, device: str) -> None:
        charge = self._supervisor.get(device)
        table = self._fleet.tables.get(charge.resource) if charge is not None else None
        if table is not None and not _serves_devd(device):
            table.notify()

    def _forgotten(self, device: str) -> None:
        self._feed.forget(device)
        if not _serves_devd(device):
            self._fleet.scouts.forgotten(device)
        self._wake()

    def _listed(self, scout: str, listing: Listing) -> None:
        del scout
        self._fleet.scouts.take(listing)
        self._wake()

    def _greeted(self, device: str) -> None:
        if device == SCRIBE_ID:
            self._cdi.greeted()

    def _wrote(self, written: Written) -> None:
        self._cdi.take(written)
        self._wake()

    def _renamed(self, resource: str) -> None:
        table = self._fleet.tables.get(resource)
        if table is not None:
            table.notify()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._fleet.wake()

    def _answered(self, waiter: int, device: str, ok: bool, text: str) -> None:  # noqa: FBT001 - as the effect has it
        del device
        self._desk.answered(waiter, ok=ok, text=text)

    def _journal_line(self, device: str, event: str, fields: dict[str, object]) -> None:
        self._journal.write(device, event, **fields)

    def _misbehaved(self, device: str, detail: str) -> None:
        charge = self._supervisor.get(device)
        if charge is not None:
            self._supervisor.misbehaved(device, charge.state.incarnation, detail)

    def _ask_pre_start(self, device: str, waiter: int) -> None:
        self._supervisor.send(device, ev.PreStartAsked(self._supervisor.now(), waiter))

    def _expire_pre_start(self, device: str, waiter: int) -> None:
        self._supervisor.send(device, ev.PreStartExpired(self._supervisor.now(), waiter))

    def _find(self, resource: str, offered: str) -> Device | None:
        return self._fleet.find(resource, offered)

    def _respects(self, device: str, waiters: Sequence[int]) -> Callable[[], Occupied]:
        return self._desk.respects(device, waiters)

    def _authenticate(self) -> None:
        self._auth.handle()
        for device, what in self._auth.offenders().items():
            # A first connection ends only when this side ends it: for frames past all bounds.
            self._misbehaved(device, f"was refused a connection: {what}")
        if self._auth.pending():
            asyncio.get_running_loop().call_soon(self._authenticate)

    # ---- status ----

    def _facts(self) -> dict[str, object]:
        return {
            "config": str(self._options.config),
            "kubelet_dir": str(self._config.kubelet.dir),
            "registration": self._config.kubelet.registration,
            "pod_resources": str(self._pods.path),
            "runtime_dir": str(self._layout.root),
        }

    def _in_short(self) -> str:
        """Return what ``systemctl status`` shows."""
        listed = [device for table in self._fleet.tables.values() for device in table.listed()]
        healthy = sum(map(self._supervisor.healthy, listed))
        endpoints = self._fleet.endpoints.values()
        registered = sum(one.status.state == "registered" for one in endpoints)
        return f"{healthy} of {len(listed)} devices Healthy, {registered} of {len(endpoints)} resources registered"

    def _build_status(self) -> dict[str, Any]:
        return self._status.build(
            {
                "health_messages": self._feed.received,
                "health_refused": dict(self._feed.refused),
                "commands_refused": dict(self._supervisor.workforce.refused),
                "peers_refused": dict(self._auth.refused),
                "control_answered": self._control.answered,
                "control_refused": self._control.refused,
                "control_cuts": self._control.cuts,
                "memory_ended": self._heap.ended,
                "memory_accepted": self._heap.accepted,
                "stalls": self._supervisor.stalls,
                "loop_blocks": self._watchdog.blocks,
                "journal": asdict(self._journal.status()),
                "state": asdict(self._memory.status()),
                "log_lost": self._log.lost,
            },
            self._reload.facts(),
        )

    async def _start_metrics(self) -> MetricsServer | None:
        """Answer Prometheus, if that is configured. Raises StartupError."""
        if self._config.metrics is None:
            return None
        process = OwnProcess()
        server = MetricsServer(
            self._config.metrics.listen, lambda: metrics_page(self._build_status(), self._times, process.read())
        )
        await server.start()
        return server

    # ---- the end ----

    def _end_asked(self, number: int) -> None:
        self._signals += 1
        log.info("%s: ending%s", signal.Signals(number).name, " at once" if self._signals > 1 else "")
        self._ended.set()
        # Whoever waits for the workers' ends need not any longer.
        self._changed.set()

    def _ended_early(self) -> int:
        """Let go of what there is before anything was offered."""
        self._notifier.close()
        self._watchdog.close()
        self._memory.close(DISKS_WITHIN_S / 2)
        self._journal.close(DISKS_WITHIN_S / 2)
        self._context.destroy(linger=0)
        log.info("devd ended before it served", extra={"event": "end"})
        return EXIT_OK

    async def _take_apart(self) -> None:
        """End in the order that tells no lies: first the streams, then the workers."""
        self._reload.close()
        self._cdi.close()
        # Before the servers stop: a call that is cut short tells nobody why.
        self._desk.close()
        await self._fleet.stop(ENDPOINTS_LEAVE_WITHIN_S)
        for charge in self._supervisor:
            self._supervisor.send(charge.state.id, ev.Retired(self._supervisor.now()))
        with suppress(TimeoutError):
            async with asyncio.timeout(WORKERS_LEAVE_WITHIN_S):
                while self._supervisor.workforce.pids and self._signals <= 1:
                    self._changed.clear()
                    await self._changed.wait()

    async def _close(self, bus: HealthSubscriber) -> None:
        loop = asyncio.get_running_loop()
        left = self._supervisor.workforce.pids
        if left:
            log.warning("workers %s do not end: the kernel keeps them until their device lets go", list(left))
        self._heap.close()
        self._control.close()
        if self._metrics is not None:
            await self._metrics.close()
        # Readers before descriptors: a number that is closed first may be another's by the time it is let go.
        self._feed.close()
        bus.close()
        self._supervisor.close()
        await self._supervisor.workforce.forks.ended(FORK_SERVER_LEAVES_WITHIN_S)
        loop.remove_reader(self._auth.fd)
        self._auth.close()
        loop.remove_signal_handler(signal.SIGCHLD)
        self._journal.close(DISKS_WITHIN_S / 2)
        if not self._memory.close(DISKS_WITHIN_S / 2):
            log.warning("the disk did not take all state in time: a restart may forget cordons, failures or fences")
        self._context.destroy(linger=0)
        log.info("devd ended", extra={"event": "end"})


def _serves_devd(device: str) -> bool:
    """Return whether a charge is no device, but one of devd's own helpers."""
    return device.startswith(SCOUT_PREFIX) or device == SCRIBE_ID


def _spare_what_stays() -> None:
    """Have the garbage collector pass over what the imports made: looking through it stops the loop for 20 to 60 ms."""
    gc.collect()
    gc.freeze()


def _become_subreaper() -> None:
    """Have orphaned workers become our children, so that their ends can be waited for."""
    libc = ctypes.CDLL(None, use_errno=True)
    prctl: Callable[..., int] = libc.prctl
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log.warning("prctl(PR_SET_CHILD_SUBREAPER): %s", os.strerror(ctypes.get_errno()))


def _raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one: each worker takes about six."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
