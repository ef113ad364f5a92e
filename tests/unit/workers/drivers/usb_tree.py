"""USB worlds for the drivers' tests: a host controller, its buses, devices at their ports, as sysfs has them."""

from collections.abc import Mapping
from pathlib import Path

from tests.unit.workers.drivers.tree import Content, grow, link

BOOT = "proc/sys/kernel/random/boot_id"
DEVICES = "sys/bus/usb/devices"
CONTROLLER = "sys/devices/pci0000:00/0000:00:14.0"


def device(
    root: Path,
    name: str = "1-4",
    *,
    serial: str | None = "A50285BI",
    number: int = 5,
    controller: str = CONTROLLER,
    version: str = " 2.00",
    files: Mapping[str, Content] | None = None,
) -> Path:
    """Grow a device at a port ("1-4.2" is behind the hub "1-4") and return its real directory."""
    bus, _dash, ports = name.partition("-")
    steps = ports.split(".")
    folders = [f"{bus}-{'.'.join(steps[: depth + 1])}" for depth in range(len(steps))]
    hub = f"{controller}/usb{bus}"
    real = "/".join((hub, *folders))
    parent = folders[-2] if len(folders) > 1 else f"usb{bus}"
    port = f"{real.rpartition('/')[0]}/{parent if len(folders) > 1 else f'{bus}-0'}:1.0/{parent}-port{steps[-1]}"
    raw = f"bus/usb/{int(bus):03d}/{number:03d}"
    minor = (int(bus) - 1) * 128 + number - 1
    plain: dict[str, Content] = {
        "idVendor": "0403",
        "idProduct": "6001",
        "manufacturer": "FTDI",
        "product": "FT232R USB UART",
        "bDeviceClass": "00",
        "bConfigurationValue": "1",
        "busnum": bus,
        "devnum": str(number),
        "speed": "12",
        "authorized": "1",
        "power/runtime_status": "active",
        "dev": f"189:{minor}",
        "uevent": f"MAJOR=189\nMINOR={minor}\nDEVNAME={raw}\nDEVTYPE=usb_device",
    }
    if serial is not None:
        plain["serial"] = serial
    grow(root, {f"{real}/{key}": value for key, value in (plain | dict(files or {})).items() if value != "absent"})
    grow(root, {f"{controller}/numa_node": "0", f"{hub}/version": version, f"{port}/over_current_count": "0"})
    grow(root, {f"dev/{raw}": b"", BOOT: "boot-1", "proc/self": None})
    grow(root, {"sys/bus/usb/devices/usb1": None, f"sys/bus/usb/devices/{name}:1.0": None})
    link(root, f"sys/bus/usb/devices/{name}", real)
    link(root, f"{real}/port", port)
    return root / real


def tty(root: Path, real: Path, name: str = "ttyUSB0", number: int = 0) -> None:
    """Grow a serial line of a device."""
    below = f"{real.relative_to(root)}/{real.name}:1.0/{name}/tty/{name}"
    grow(root, {f"{below}/dev": f"188:{number}", f"{below}/uevent": f"MAJOR=188\nDEVNAME={name}", f"dev/{name}": b""})
    grow(root, {"sys/class/tty": None})
    link(root, f"{below}/subsystem", "sys/class/tty")


def unplug(root: Path, name: str) -> None:
    """Take a device off the bus' list."""
    (root / DEVICES / name).unlink()


def replug(root: Path, name: str) -> None:
    """Put a device that was unplugged back into its port, as it was."""
    [real] = (root / CONTROLLER).glob(f"**/{name}")
    link(root, f"{DEVICES}/{name}", str(real.relative_to(root)))
