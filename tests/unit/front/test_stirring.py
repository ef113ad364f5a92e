"""What a scout says that the kernel changed: whose workers are asked to probe, and how often at most."""

import itertools
from collections.abc import Mapping

import pytest

from devd.daemon import lifecycle
from devd.daemon.charge import Charge
from devd.daemon.device_state import BLANK, Policy
from devd.daemon.stirring import PAUSE_S, Stirring
from devd.ipc.messages import Stirred, WorkerSpec

POLICY = Policy(period_s=60, timeout_s=1)


def _unmade(incarnation: int, health_endpoint: str, command_endpoint: str) -> WorkerSpec:
    raise AssertionError(incarnation, health_endpoint, command_endpoint)


class Asked:
    """The devices there are, and who was asked when: what the supervisor is to whoever stirs."""

    def __init__(self) -> None:
        resources = {"gpu-1": "x.io/gpu", "gpu-2": "x.io/gpu", "disk": "x.io/disk"}
        self.charges: Mapping[str, Charge] = {
            name: Charge(resource, lifecycle.birth(name, 0.0, POLICY, BLANK)[0], POLICY, _unmade)
            for name, resource in resources.items()
        }
        self.now_s = 100.0
        self.asked: list[tuple[str, float]] = []

    def get(self, device: str) -> Charge | None:
        """Return a charge, or None."""
        return self.charges.get(device)

    def probe_now(self, device: str) -> bool:
        """Take note."""
        self.asked.append((device, self.now_s))
        return True


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_a_scout_stirs_the_devices_of_its_own_resource_alone(asked: Asked) -> None:
    """Another resource's device and one that nobody knows are left alone."""
    Stirring(asked, lambda: asked.now_s).take(Stirred("x.io/gpu", 1, ("gpu-1", "disk", "nobody")))
    assert asked.asked == [("gpu-1", 100.0)]


def test_a_storm_costs_a_few_probes_a_second(asked: Asked) -> None:
    """Whatever a scout says, a device is probed so often at most; each has its own measure."""
    stirring = Stirring(asked, lambda: asked.now_s)
    for _turn in range(1000):
        stirring.take(Stirred("x.io/gpu", 1, ("gpu-1", "gpu-2", "gpu-1")))
        asked.now_s += 0.01
    for device in ("gpu-1", "gpu-2"):
        times = [at_s for name, at_s in asked.asked if name == device]
        assert all(later - sooner >= PAUSE_S for sooner, later in itertools.pairwise(times))
        assert len(times) >= 10 / (2 * PAUSE_S)
