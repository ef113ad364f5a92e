"""Which devices a uevent is about."""

import os
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.stirred import whose

DISK = "/devices/pci0000:00/0000:00:1c.4/0000:03:00.0/nvme/nvme0/nvme0n1"
CARD = "/devices/pci0000:00/0000:00:1c.4/0000:03:00.1"
DEVICES = (
    Device("disk", properties={"sysfs": f"/sys{DISK}"}),
    Device("card", properties={"sysfs": f"/sys{CARD}"}),
    Device("bare"),
    Device("odd", properties={"sysfs": "/sys"}),
)


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        (DISK, ("disk",)),
        (DISK.rpartition("/")[0], ("disk",)),  # the controller it hangs on
        ("/devices/pci0000:00/0000:00:1c.4/0000:03:00.0", ("disk",)),  # its PCI function
        (f"{CARD}/drm/card0", ("card",)),
        ("/devices/pci0000:00/0000:00:1c.4", ("disk", "card")),  # the port above both
        (f"{CARD}0", ()),
        ("/devices/pci0000:00/0000:00:1c.4/0000:03:00.0/nvme/nvme0/nvme0n10", ()),
        ("/devices/virtual/mem/null", ()),
    ],
)
def test_a_change_is_about_what_it_hangs_on_and_what_hangs_on_it(path: str, ids: tuple[str, ...]) -> None:
    """At, above or below the device's own directory; a name that merely begins alike is another's."""
    assert whose({path}, DEVICES) == ids


def test_nothing_heard_is_about_nobody() -> None:
    """Without a change no directory is looked up."""
    assert whose((), DEVICES) == ()


def test_a_directory_that_is_named_by_a_link_is_followed() -> None:
    """Some drivers name a bus's or a class's link to it."""
    link = next((one for one in Path("/sys/class/mem").iterdir()), None)
    assert link is not None
    path = os.path.realpath(link).removeprefix("/sys")
    assert whose({path}, [Device("one", properties={"sysfs": str(link)})]) == ("one",)
