"""All resources that are served: their tables, scouts and endpoints; and how they become those of a new configuration.

Runs on the event loop. The two maps are shared with whoever shows them and are changed in place.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress

from devd.daemon.cdi_desk import CdiDesk
from devd.daemon.config import Config, Resource
from devd.daemon.config_diff import Changes, Touch, changes
from devd.daemon.endpoint import ResourceEndpoint
from devd.daemon.errors import StartupError
from devd.daemon.first_verdicts import FirstVerdicts
from devd.daemon.kubelet_watch import KubeletWatch
from devd.daemon.prestart import PreStartDesk
from devd.daemon.rpc_times import RpcTimes
from devd.daemon.scout_feed import ScoutFeed
from devd.daemon.supervisor import Supervisor
from devd.daemon.table import ResourceTable
from devd.ipc.messages import Device

TRY_AGAIN_S = 5.0
"""Pause before a resource that came with a new configuration and cannot be served is tried again."""

log = logging.getLogger("devd")
kubelet_log = logging.getLogger("devd.kubelet")


class Fleet:
    """Owner of the serving tasks. ``failed`` is called when a resource of the first configuration cannot be served."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        desk: PreStartDesk,
        names: CdiDesk,
        watch: KubeletWatch,
        times: RpcTimes,
        failed: Callable[[], None],
    ) -> None:
        self.config = config
        self.tables: dict[str, ResourceTable] = {}
        self.endpoints: dict[str, ResourceEndpoint] = {}
        self.scouts = ScoutFeed(asyncio.get_running_loop(), supervisor, self.tables)
        self.problems: dict[str, str] = {}
        self._supervisor = supervisor
        self._desk = desk
        self._names = names
        self._watch = watch
        self._times = times
        self._failed = failed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        for resource in config.resources:
            self._put(resource)

    def start(self) -> None:
        """Send out the scouts and begin to serve."""
        for name in self.tables:
            self.scouts.send_out(name)
            self._serve(name, self._serve_or_fail(name))

    def find(self, resource: str, offered: str) -> Device | None:
        """Return the device behind an id that a resource offers, or None."""
        table = self.tables.get(resource)
        return table.device(offered) if table is not None else None

    @property
    def undiscovered(self) -> dict[str, str]:
        """Why it is not known yet what there is of a resource, by its name."""
        return {name: self.scouts.why_unlisted(name) for name in self.tables if not self.scouts.listed(name)}

    @property
    def settled(self) -> bool:
        """Whether the first try with the kubelet is over for each resource: it has it, or the status tells why not."""
        return all(one.settled for one in self.endpoints.values())

    def wake(self) -> None:
        """Take note that something about some device is not as it was."""
        self._changed.set()

    async def stop(self, within_s: float) -> None:
        """Take all resources off the kubelet: no stream tells lies while the workers leave."""
        self.scouts.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        stops = (one.stop() for one in self.endpoints.values())
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*stops, *self._leaving, return_exceptions=True), within_s)
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- a new configuration ----------------------------------------------------------------------------------------

    def apply(self, config: Config) -> Changes:
        """Run by a new configuration from now on; return what changed, or why it is refused (then nothing has)."""
        found = changes(self.config, config)
        if found.refused:
            return found
        self.config = config
        for name in found.removed:
            self._remove(name)
        resources = {one.name: one for one in config.resources}
        for name in found.added:
            self._add(resources[name])
        for name, touch in found.touched:
            self._change(resources[name], touch)
        self._sort(list(resources))
        self.wake()
        return found

    def _sort(self, names: list[str]) -> None:
        """Put the tables into the configuration's order: the first to claim a device is the first in the file."""
        tables = {name: self.tables[name] for name in names}
        self.tables.clear()
        self.tables.update(tables)

    def _add(self, resource: Resource) -> None:
        self._put(resource)
        self.scouts.send_out(resource.name)
        self._serve(resource.name, self._serve_or_try_again(resource.name))

    def _remove(self, name: str) -> None:
        self._drop_endpoint(name)
        self.scouts.call_back(name)
        del self.tables[name]
        self._names.remove(name)
        self.problems.pop(name, None)

    def _change(self, resource: Resource, touch: Touch) -> None:
        name = resource.name
        if touch is Touch.ALL:
            self._remove(name)
            self._add(resource)
            return
        self.tables[name].reconfigure(resource)
        self.scouts.reconfigure(name, touch)
        if Touch.ENDPOINT in touch:
            self._drop_endpoint(name)
            self._put_endpoint(name)
            self._serve(name, self._serve_or_try_again(name))

    # ---- serving ----------------------------------------------------------------------------------------------------

    def _put(self, resource: Resource) -> None:
        self.tables[resource.name] = ResourceTable(resource, self._supervisor, self._desk, self._names)
        self._put_endpoint(resource.name)

    def _put_endpoint(self, name: str) -> None:
        self.endpoints[name] = ResourceEndpoint(
            self.tables[name], self.config.kubelet, self._watch, log=kubelet_log, times=self._times
        )

    def _drop_endpoint(self, name: str) -> None:
        """Take a resource off the kubelet; what comes next on its socket waits for that."""
        stopping = asyncio.create_task(self._stopped(self.endpoints.pop(name), self._tasks.pop(name)))
        self._leaving.add(stopping)
        stopping.add_done_callback(self._leaving.discard)

    async def _stopped(self, endpoint: ResourceEndpoint, task: asyncio.Task[None]) -> None:
        await endpoint.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _serve(self, name: str, serving: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.create_task(serving, name=f"serve {name}")

    async def _serve_or_fail(self, name: str) -> None:
        """Serve a resource of the first configuration: what cannot be served then is a mistake somebody looks for."""
        try:
            await self._once_decided(name)
        except asyncio.CancelledError:
            raise
        except StartupError as error:
            log.error("%s", error)
            self._failed()
        except Exception:
            log.exception("%s cannot be served", name)
            self._failed()

    async def _serve_or_try_again(self, name: str) -> None:
        """Serve a resource that came later: the others have no part in its trouble."""
        while self._leaving:
            await asyncio.wait(self._leaving)
        while True:
            try:
                await self._once_decided(name)
            except StartupError as error:
                log.error("%s", error)
                self.problems[name] = str(error)
            await asyncio.sleep(TRY_AGAIN_S)
            self._put_endpoint(name)

    async def _once_decided(self, name: str) -> None:
        """Serve one resource as soon as its first verdicts are there, or those that are not are late."""
        loop, table = asyncio.get_running_loop(), self.tables[name]
        first = FirstVerdicts(loop.time())
        while True:
            now_s, listed = loop.time(), self.scouts.listed(name)
            due_s = first.due_s(now_s, table.known if listed else None, all_known=listed and table.decided)
            if due_s <= now_s:
                break
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._changed.wait()
        self.problems.pop(name, None)
        await self.endpoints[name].run()
