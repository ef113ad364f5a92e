"""``devd inject``: an operator has simulated devices misbehave, to rehearse what a real one would bring about."""

from collections.abc import Mapping
from typing import cast, get_args

from devd.daemon.charge import Charge
from devd.daemon.claimed_text import REASON_CHARS, plain
from devd.daemon.scout_feed import scout_id
from devd.daemon.supervisor import Supervisor
from devd.ipc.messages import Fault, FaultKind

NOTHING = "none"
"""The fault that ends a fault."""
MAX_FAULT_S = 30 * 86400.0
FAULTS: tuple[str, ...] = (*get_args(FaultKind), NOTHING)


def inject(supervisor: Supervisor, args: Mapping[str, object]) -> tuple[tuple[str, ...], str]:
    """Inject ``args["fault"]`` into a device, or into each of a resource's, for ``args["for_s"]`` seconds.

    Returns the devices that take it, and why it is refused (then none does).
    """
    target = args.get("target")
    devices = _devices(supervisor, target)
    if not devices:
        return (), f"no device and no resource {target!r:.80}: 'devd status' lists them"
    fault, error = _fault(args, supervisor.now())
    if error:
        return (), error
    for charge in devices:
        if not charge.simulated:
            return (), (
                f"{charge.state.id}: faults are injected into simulated devices alone (probe kind sim) that have had a "
                "worker; to withhold a real one: 'devd cordon'"
            )
    names = tuple(one.state.id for one in devices)
    for name in names:
        supervisor.inject(name, fault)
    return names, ""


def _devices(supervisor: Supervisor, target: object) -> tuple[Charge, ...]:
    if not isinstance(target, str):
        return ()
    device = supervisor.get(target)
    if device is not None:
        return (device,)
    scout = scout_id(target)
    return tuple(one for one in supervisor if one.resource == target and one.state.id != scout)


def _fault(args: Mapping[str, object], now_s: float) -> tuple[Fault | None, str]:
    kind, for_s = args.get("fault"), args.get("for_s")
    if kind not in FAULTS:
        return None, f"unknown fault {kind!r:.40}: this daemon knows {', '.join(FAULTS)}"
    if kind == NOTHING:
        return None, ""
    if for_s is not None and not (isinstance(for_s, int | float) and 0 < for_s <= MAX_FAULT_S):
        return None, f"a fault can last up to {MAX_FAULT_S:g} seconds, not {for_s!r:.40}"
    until_s = None if for_s is None else now_s + for_s
    return Fault(cast("FaultKind", kind), until_s, plain(str(args.get("reason", "")), REASON_CHARS)), ""
