"""What containers get, by a real daemon: groups of nodes, stable links, properties, the best of several devices."""

from pathlib import Path

import pytest

from devd.daemon.demo.kubelet_rules import AdmissionError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, SIM, scenario, sim, until

LINGER = "    discovery: {period: 1s, linger: 30s}\n"


def group(folder: Path) -> str:
    """Return a configuration of one group of two links."""
    return f"""resources:
  - name: {FILES}
    driver: node
    match: {{groups: [{{name: radio, path: ["{folder}/ctl", "{folder}/data*"]}}]}}
    probe: {{kind: exists, period: 200ms, timeout: 500ms}}
    container_path: "/dev/radio/{{name}}"
    env: {{NODES: "{{paths}}"}}
{LINGER}"""


def test_a_group_is_given_whole_and_falls_with_one_node(tmp_path: Path) -> None:
    """A container gets all its nodes; with one of them gone it is Unhealthy, and the reason names that one."""
    (tmp_path / "ctl").symlink_to("/dev/null")
    (tmp_path / "data0").symlink_to("/dev/zero")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        given = (await rig.kubelet.allocate(FILES, ids=["radio"], pod="first")).response
        rig.kubelet.free("first")
        assert [(one.host_path, one.container_path) for one in given.devices] == [
            (f"{tmp_path}/ctl", "/dev/radio/ctl"),
            (f"{tmp_path}/data0", "/dev/radio/data0"),
        ]
        assert given.envs["NODES"] == "/dev/radio/ctl,/dev/radio/data0"
        assert given.envs["DEVD_TEST_DEVD_IO_FILES_DEVICES"] == "radio"
        (tmp_path / "data0").unlink()
        await rig.unhealthy(FILES, 1)
        with pytest.raises(AdmissionError, match=r"radio is Unhealthy: .*/data"):
            await rig.kubelet.allocate(FILES, ids=["radio"])
        await until(lambda: "is missing" in str(rig.status()["resources"]), "the scout's word")
        (tmp_path / "data0").symlink_to("/dev/zero")
        await rig.healthy(FILES, 1)

    scenario(group(tmp_path), play)


def test_a_stable_link_has_a_fixed_path_in_the_container(tmp_path: Path) -> None:
    """A node found by a link is given by the link, at a path that does not depend on it; the id outlives a replug."""
    stable = tmp_path / "usb-FTDI-A50285BI"
    stable.symlink_to("/dev/null")
    config = f"""resources:
  - name: {FILES}
    driver: node
    match: {{path: "{tmp_path}/usb-*"}}
    probe: {{kind: exists, period: 200ms, timeout: 500ms}}
    container_path: "/dev/serial{{index}}"
{LINGER}"""

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        first = await rig.kubelet.allocate(FILES, pod="first")
        rig.kubelet.free("first")
        stable.unlink()
        await rig.unhealthy(FILES, 1)
        stable.symlink_to("/dev/zero")  # another number, as after a replug
        await rig.healthy(FILES, 1)
        second = await rig.kubelet.allocate(FILES, ids=list(first.ids))
        for one in (first, second):
            (node,) = one.response.devices
            assert (node.host_path, node.container_path) == (str(stable), "/dev/serial0")

    scenario(config, play)


def test_devices_that_go_together_are_given_together() -> None:
    """The kubelet is told the pair on one switch, and a container is told what its devices are."""
    devices = ", ".join(
        f"{{name: gpu{number}, numa_node: {number // 4}, properties: {{serial: S{number}, pcie_switch: s{switch}}}}}"
        for number, switch in enumerate((0, 1, 2, 1, 3, 4))
    )

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 6)
        given = await rig.kubelet.allocate(SIM, 2)
        assert sorted(given.ids) == ["gpu1", "gpu3"]
        assert given.response.envs["SERIALS"] == "S1,S3"

    scenario(sim(f"[{devices}]", more='    env: {SERIALS: "{serial}"}\n'), play)


def test_a_property_a_device_has_not_is_refused_with_its_name() -> None:
    """The pod's status says which device lacks what."""
    devices = "[{name: a, properties: {serial: S1}}, {name: b}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        assert (await rig.kubelet.allocate(SIM, ids=["a"])).response.envs["S"] == "S1"
        with pytest.raises(AdmissionError, match="env S: device b has no property serial; it has: none"):
            await rig.kubelet.allocate(SIM, ids=["b"])

    scenario(sim(devices, more='    env: {S: "{serial}"}\n'), play)
