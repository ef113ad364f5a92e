"""The variables a container gets without being asked for: named after the resource, so that no two collide. Pure."""

import re
from collections.abc import Mapping, Sequence

_UNFIT = re.compile(r"[^A-Z0-9]")


def devices_variable(resource: str) -> str:
    """Return the variable that has the ids of a resource's devices: DEVD_EXAMPLE_COM_SERIAL_DEVICES."""
    return f"DEVD_{_UNFIT.sub('_', resource.upper())}_DEVICES"


def machine_variables(resource: str) -> tuple[str, ...]:
    """Return the variables by which runtimes of virtual machines find what they were given by driver ``vfio``.

    PCI_RESOURCE_ is read by KubeVirt, PCIDEVICE_ by those that follow the SR-IOV network device plugin. Both make _ of
    dots and the slash alone.
    """
    name = resource.upper().replace("/", "_").replace(".", "_")
    return f"PCI_RESOURCE_{name}", f"PCIDEVICE_{name}"


def names(resource: str, driver: str) -> tuple[str, ...]:
    """Return the variables a container always gets for a resource."""
    return (devices_variable(resource), *(machine_variables(resource) if driver == "vfio" else ()))


def given(resource: str, driver: str, ids: Sequence[str], properties: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return them with their values; ids and properties are those of the container's devices, in order."""
    found = {devices_variable(resource): ",".join(ids)}
    if driver == "vfio":
        addresses = ",".join(one["addresses"] for one in properties if one.get("addresses"))
        found |= dict.fromkeys(machine_variables(resource), addresses)
    return found
