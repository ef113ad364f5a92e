"""``devd discover`` on this machine: real drivers, real processes, and a daemon that runs what was suggested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from devd.daemon import discover
from devd.daemon.demo.rig import Rig
from devd.daemon.look import Looked
from devd.daemon.suggest import suggestion
from devd.daemon.survey import Surveyed
from devd.ipc.messages import Device
from tests.faults.worlds import scenario, until
from tests.unit.workers.drivers import usb_tree

FUSE = Path("/dev/fuse")
USB_WORLD = Path(__file__).parents[1] / "support" / "usbworld"
needs_fuse = pytest.mark.skipif(not FUSE.is_char_device(), reason="this machine has no /dev/fuse to find")


def devd(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "devd", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@needs_fuse
def test_whole_node_is_told_by_driver() -> None:
    """Without a configuration every driver is asked; what is there is named with its nodes and numbers."""
    told = devd("discover")
    assert (told.returncode, told.stderr) == (0, "")
    assert "node (fuse): 1 device" in told.stdout
    assert "/dev/fuse (char 10:229)" in told.stdout
    found = json.loads(devd("discover", "-o", "json").stdout)
    assert found["version"] == 1
    assert {one["driver"] for one in found["drivers"]} >= {"nvidia", "infiniband", "nvme", "vfio", "usb", "pci", "node"}
    [fuse] = [one for one in found["drivers"] if one["kind"] == "fuse"]
    assert [node["path"] for device in fuse["devices"] for node in device["nodes"]] == ["/dev/fuse"]
    assert all(one["error"] is None for one in found["drivers"])


@needs_fuse
def test_suggestion_is_taken_and_offers_what_it_names(tmp_path: Path) -> None:
    """The suggested file passes ``devd check``, and a daemon that runs it offers just the devices it names."""
    told = devd("discover", "--suggest")
    assert (told.returncode, told.stderr) == (0, "")
    file = tmp_path / "suggested.yaml"
    file.write_text(told.stdout, encoding="utf-8")
    assert devd("check", str(file)).returncode == 0
    found = json.loads(devd("discover", "--config", str(file), "-o", "json").stdout)["resources"]
    wanted = {one["name"]: sorted(device["id"] for device in one["devices"]) for one in found}
    assert wanted["devd.io/fuse"] == ["fuse"]
    assert all(wanted.values())
    names = [one["name"] for one in yaml.safe_load(told.stdout)["resources"]]

    async def play(rig: Rig) -> None:
        await until(lambda: [one["name"] for one in rig.status()["resources"]] == names, "the resources")
        await until(
            lambda: (
                {
                    name: sorted(one["id"] for one in rig.status()["devices"] if one["resource"] == name)
                    for name in names
                }
                == wanted
            ),
            "the devices",
        )

    scenario(told.stdout, play)


def test_questions_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    """--suggest is for the whole node and prints YAML."""
    assert devd("discover", "--suggest", "--config", str(tmp_path)).returncode == 2
    told = devd("discover", "--suggest", "-o", "json")
    assert told.returncode == 2
    assert "--suggest prints YAML" in told.stderr


def test_wrong_configuration_is_told_by_place(tmp_path: Path) -> None:
    """A configuration with errors ends with exit code 2 and names the place."""
    file = tmp_path / "wrong.yaml"
    file.write_text("resources: [{name: x}]", encoding="utf-8")
    told = devd("discover", "--config", str(file))
    assert told.returncode == 2
    assert "resources[0]" in told.stderr


def test_devices_words_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    """A device that calls itself by an escape sequence is shown with it escaped; JSON escapes by itself."""
    for port, number in (("1-1", 5), ("1-2", 6)):
        usb_tree.device(tmp_path / "world", port, serial="\x1b[2J\u2028X", number=number)
    file = tmp_path / "devd.yaml"
    file.write_text('resources: [{name: a.io/x, driver: usbworld, match: {vendor: "0403"}}]', encoding="utf-8")
    place = {"PYTHONPATH": str(USB_WORLD), "USB_WORLD": str(tmp_path / "world"), "DEVD_WORKER_ENV": "USB_WORLD"}
    for output in ("text", "json"):
        told = devd("discover", "--config", str(file), "-o", output, **place)
        assert told.returncode == 0, told.stderr
        assert "say they are 0403:6001:" in told.stdout
        assert all(one.isprintable() for one in told.stdout.replace("\n", ""))


def test_words_of_devices_and_programs_stay_in_their_line() -> None:
    """What a device says of itself, who uses it and why it could not be looked at; in a comment of YAML as well."""
    evil = "\x1b[31mred\u2028- name: b.io/evil\x85"
    device = Device("x", (), {"product_name": evil, "vendor": "1d6b", "product": "0104"})
    found = Surveyed("usb", "", {}, Looked((device,), (evil,), {"x": evil}))
    failed = Surveyed("pci", "", {}, Looked(error=evil))
    shown = [*discover._surveyed(found), *discover._surveyed(failed)]
    assert len(shown) == 4
    assert all("\\x1b[31mred" in one for one in shown[1:])
    assert all(sign.isprintable() for line in shown for sign in line)
    text = suggestion([found])
    assert "evil" in text
    assert all(sign.isprintable() for sign in text.replace("\n", ""))
    assert [one["name"] for one in yaml.safe_load(text)["resources"]] == ["devd.io/simulated"]
