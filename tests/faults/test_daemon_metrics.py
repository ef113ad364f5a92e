"""What Prometheus reads from a real daemon with devices that are well, fail, hang and crash."""

import asyncio
import http.client
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import psutil
from prometheus_client.parser import text_string_to_metric_families

from devd.daemon.demo.rig import Rig
from devd.daemon.metrics.catalog import CATALOG
from tests.faults.worlds import GRACE_S, SIM, alive, scenario, sim, until

DEVICES = (
    "[{name: well}, {name: fails, script: [{do: fail, reason: link down}]}, {name: hangs, script: [{do: hang}]}, "
    "{name: crashes, script: [{do: exit}]}]"
)
RESTART = "    restart: {intensity: 1, period: 60s, backoff: 50ms}\n"
SCRAPE_WITHIN_S = 5.0


LOOPBACK = f"127.{1 + (os.getpid() >> 16 & 0x3F)}.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"
"""An address of this process's own: a port that was free a moment ago is not another test's by now."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        return int(taken.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a GET. Raises OSError when nobody answers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SCRAPE_WITHIN_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Scrape:
    """One reading of /metrics."""

    def __init__(self, port: int) -> None:
        status, text = get(port, "/metrics")
        assert status == 200
        self.families = {one.name: one for one in text_string_to_metric_families(text)}
        samples = [one for family in self.families.values() for one in family.samples]
        self.samples = {(one.name, *sorted(one.labels.items())): one.value for one in samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return one sample. Raises LookupError."""
        return self.samples[name, *sorted(labels.items())]

    def device(self, name: str, device: str, **labels: str) -> float:
        """Return one sample of a device. Raises LookupError."""
        return self(name, resource=SIM, device=device, **labels)


def with_metrics(port: int, config: str) -> str:
    """Return the configuration with an endpoint for metrics."""
    return f'metrics: {{listen: "{LOOPBACK}:{port}"}}\n{config}'


def measured(config: str, play: Callable[[Rig, int], Awaitable[None]]) -> None:
    """Run a scenario with metrics on a port of its own."""
    port = free_port()
    scenario(with_metrics(port, config), lambda rig: play(rig, port))


def test_every_kind_of_device_shows_as_what_it_is() -> None:
    """Well, failing, hanging and crashing devices show as such, all metrics are there, and devd status agrees."""

    async def play(rig: Rig, port: int) -> None:
        await rig.kubelet.wait_for(lambda: rig.kubelet.allocatable(SIM) == 1, GRACE_S, "the well one")
        await until(lambda: Scrape(port).device("devd_device_phase", "crashes", phase="failed") == 1, "the giving up")
        await until(lambda: Scrape(port).device("devd_worker_restarts_total", "hangs") > 0, "the hung one's restart")
        await until(lambda: Scrape(port)("devd_rpcs_total", method="ListAndWatch", result="ok") == 1, "the stream")
        now = Scrape(port)
        healthy = {name: now.device("devd_device_healthy", name) for name in ("well", "fails", "hangs", "crashes")}
        assert healthy == {"well": 1, "fails": 0, "hangs": 0, "crashes": 0}
        assert now.device("devd_worker_up", "well") == 1
        assert now.device("devd_worker_up", "crashes") == 0
        assert now.device("devd_probe_passed", "fails") == 0
        assert 0 < now.device("devd_device_lease_seconds", "well") < 1
        assert now.device("devd_worker_restarts_total", "well") == 0
        assert now("devd_resource_devices", resource=SIM) == len(rig.status()["devices"]) == 4
        assert now("devd_resource_healthy", resource=SIM) == 1
        assert now("devd_resource_registered", resource=SIM) == 1
        assert now("devd_health_messages_total") > 0
        assert now("process_open_fds") > 10
        declared = {one.name.removesuffix("_total") if one.kind == "counter" else one.name for one in CATALOG}
        assert set(now.families) == declared
        assert get(port, "/healthz") == (200, "ok\n")

    measured(sim(DEVICES, more=RESTART), play)


def test_what_the_kubelet_calls_is_counted_and_timed() -> None:
    """An Allocate shows in counts and histogram, and a kubelet that is new does not set the counts back."""

    async def play(rig: Rig, port: int) -> None:
        await rig.healthy(SIM)
        await rig.kubelet.allocate(SIM)
        await until(lambda: Scrape(port)("devd_rpcs_total", method="Allocate", result="ok") == 1, "the call")
        now = Scrape(port)
        assert now("devd_rpc_duration_seconds_count", method="Allocate") == 1
        assert now("devd_rpc_duration_seconds_bucket", method="Allocate", le="5.0") == 1
        assert now("devd_rpcs_total", method="Allocate", result="failed") == 0
        await rig.kubelet.restart()
        await until(lambda: Scrape(port)("devd_registrations_total", resource=SIM) == 2, "the second registration")
        # The new socket's calls go on from the old one's.
        await until(lambda: Scrape(port)("devd_rpcs_total", method="ListAndWatch", result="ok") == 2, "its stream")
        assert Scrape(port)("devd_rpcs_total", method="Allocate", result="ok") == 1

    measured(sim("[{name: one}]"), play)


def test_port_is_free_after_the_end() -> None:
    """After an orderly end and after SIGKILL the next devd listens on the same port: no worker keeps it."""

    async def play(rig: Rig, port: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            await rig.healthy(SIM)
            workers = rig.worker_pids()
            await rig.end_daemon(number)
            rig.start_daemon()
            await until(lambda: _scrapes(port), "the next devd's metrics")
            await until(lambda workers=workers: not any(map(alive, workers)), "the old workers' end")  # type: ignore[misc]  # mypy gives a lambda's default no type

    measured(sim("[{name: one}]"), play)


def _scrapes(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False


def test_changed_address_is_refused_while_devd_runs() -> None:
    """A new configuration with another address is not taken, says which key it is, and shows in the metrics."""

    async def play(rig: Rig, port: int) -> None:
        await rig.healthy(SIM)
        assert Scrape(port)("devd_config_error") == 0
        rig.config.write_text(sim("[{name: one}]"), encoding="utf-8")
        words = "metrics cannot be changed while devd runs"
        await until(lambda: words in str(rig.status()["daemon"]["config_error"]), "the refusal")
        await until(lambda: Scrape(port)("devd_config_error") == 1, "the refusal in the metrics")
        rig.config.write_text(with_metrics(port, sim("[{name: one}, {name: two}]")), encoding="utf-8")
        await until(lambda: Scrape(port)("devd_reloads_total") == 1, "the next one")
        assert Scrape(port)("devd_config_error") == 0

    measured(sim("[{name: one}]"), play)


def test_taken_port_ends_the_start_and_names_the_address() -> None:
    """Where another listens, devd exits 1 and says which address it wanted; no process of it stays."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"

        async def run() -> None:
            async with Rig(with_metrics(taken.getsockname()[1], sim("[{name: one}]"))) as rig:
                daemon = rig.daemon
                assert daemon is not None
                assert await asyncio.to_thread(daemon.wait, GRACE_S) == 1
                assert f"metrics.listen {address}: " in rig.log_text()
                assert "Traceback" not in rig.log_text()
                await until(lambda: not _group_lives(daemon.pid), "the end of all processes")

        asyncio.run(run())


def _group_lives(group: int) -> bool:
    """Return whether a process of a group exists; devd has a group of its own, its fork server is in it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_without_the_section_nothing_listens() -> None:
    """A configuration without metrics opens no TCP port."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        assert psutil.Process(rig.pid).net_connections(kind="inet") == []

    scenario(sim("[{name: one}]"), play)
