"""An upgrade as the kubelet sees it: one daemon ends, the next one starts on the same directories."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from devd.daemon import memory
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

FORGOTTEN_AFTER_S = 300.0
"""A resource without a stream for so long is gone from the node's capacity."""
DEVICES = "[{name: a}, {name: b}, {name: c}]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["upgrade", "crash"])
def test_kubelet_sees_the_same_devices_and_none_unhealthy(number: signal.Signals) -> None:
    """Across a replaced daemon ids stay, the first list of the new one is all Healthy, and no list says otherwise."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        held = await rig.kubelet.allocate(SIM, 2)
        await rig.end_daemon(number)
        await rig.kubelet.wait_for(lambda: rig.kubelet.allocatable(SIM) == 0, 10, "the stream's end")
        rig.start_daemon()
        away_s = await rig.healthy(SIM, 3)
        assert away_s < FORGOTTEN_AFTER_S / 10
        lists = rig.kubelet.resources[SIM].lists
        assert {tuple(sorted(one.devices)) for one in lists} == {("a", "b", "c")}
        assert {record.health for one in lists for record in one.devices.values()} == {"Healthy"}
        # The containers that ran go on, and what they hold is not given out again.
        again = await rig.kubelet.allocate(SIM, 1)
        assert not set(again.ids) & set(held.ids)

    scenario(sim(DEVICES), play)


def test_rollback_to_a_configuration_with_fewer_devices_tells_so() -> None:
    """A device that the next configuration does not have leaves the list; the others keep their ids and health."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        await rig.end_daemon()
        rig.config.write_text(sim("[{name: a}, {name: b}]"), encoding="utf-8")
        rig.start_daemon()
        await rig.kubelet.wait_for(
            lambda: (rig.kubelet.capacity(SIM), rig.kubelet.allocatable(SIM)) == (2, 2), 60, "two devices"
        )

    scenario(sim(DEVICES), play)


def test_end_is_quick_with_a_hung_device() -> None:
    """A probe that hangs does not hold up the end: termination stays far below the manifests' 30 s of grace."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        await rig.unhealthy(SIM, 1)
        code, took_s = await rig.end_daemon()
        assert code == 0
        assert took_s < 10

    scenario(sim("[{name: well}, {name: hung, script: [{for: 1s}, {do: hang}]}]"), play)


def test_second_daemon_on_a_node_is_refused() -> None:
    """Two deployments on one node do not fight for the sockets: the second names the first and ends, devices stay."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        first = rig.daemon
        second = rig.start_daemon()
        code = await asyncio.to_thread(second.wait, 30)
        rig.daemon = first
        assert code == 1
        assert str(rig.pid) in rig.log_text()
        assert rig.kubelet.allocatable(SIM) == 3

    scenario(sim(DEVICES), play)


def written_by_a_newer_devd(file: Path, **more: object) -> None:
    """Change a file of the state directory as a later release would: fields nobody knows yet, and more."""
    facts = json.loads(file.read_bytes())
    del facts["checksum"]
    facts |= {"quarantine": {"until": "tomorrow"}, **more}
    line = json.dumps({**facts, "checksum": memory._checksum(facts)}, sort_keys=True, separators=(",", ":"))
    file.write_text(line + "\n", encoding="utf-8")


def test_rollback_reads_what_it_knows_of_a_newer_devds_state() -> None:
    """What a newer devd wrote beside the known is passed over; a file of a version that is not known is set aside.

    A cordon is never lost that way: a device whose file cannot be read comes back cordoned, and the log says so.
    """

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        for device in ("a", "b"):
            rig.order("cordon", device, reason="fan is broken")
        await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken it")
        await rig.end_daemon()
        written_by_a_newer_devd(rig.state_dir / "devices" / "a.json")
        written_by_a_newer_devd(rig.state_dir / "devices" / "b.json", version=memory.VERSION + 1)
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        assert rig.device("a")["cordon"] == "fan is broken"
        assert rig.device("c")["health"] == "Healthy"
        assert "cannot be read" in rig.device("b")["cordon"]
        assert "b.json cannot be read" in rig.log_text()
        assert "a.json" not in rig.log_text()
        assert (rig.state_dir / "devices" / "b.json.newer").exists()

    scenario(sim(DEVICES), play)
