"""What a new configuration means for what runs: which parts of which resources have to be made anew. Pure."""

from dataclasses import dataclass
from enum import Flag, auto

from devd.daemon.config import Config, Resource


class Touch(Flag):
    """What of a resource is made anew; what is not named goes on untouched."""

    NOTHING = 0
    OFFER = auto()
    """What containers get and what is offered: taken from the next answer on."""
    POLICY = auto()
    """Limits and pauses of the lifecycles: taken from the next event on."""
    WORKERS = auto()
    """Each device's worker is replaced in order; its lease goes on."""
    SCOUT = auto()
    """The scanning process is replaced; devices that are found again keep their workers."""
    ENDPOINT = auto()
    """The resource is registered anew."""
    ALL = auto()
    """Nothing of the old resource has a meaning for the new one."""


@dataclass(frozen=True, slots=True)
class Changes:
    """``refused`` says why the new configuration cannot be taken while devd runs; the rest is empty then."""

    refused: str = ""
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    touched: tuple[tuple[str, Touch], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.refused or self.removed or self.added or self.touched)

    def words(self) -> str:
        """Return the changes for a log's line."""
        parts = [f"{name} removed" for name in self.removed]
        parts += [f"{name} added" for name in self.added]
        parts += [f"{name}: {_words(touch)}" for name, touch in self.touched]
        return ", ".join(parts) or "nothing that matters"


_OFFER_KEYS = ("access", "replicas", "share", "env", "annotations", "mounts", "container_path", "cdi")


def changes(old: Config, new: Config) -> Changes:
    """Return what has to be done to run by ``new`` instead of ``old``. Only the order of resources may go unnoticed."""
    names = ("dir", "registration", "registry_dir", "pod_resources")
    moved = [f"kubelet.{name}" for name in names if _differs(old.kubelet, new.kubelet, name)]
    if old.metrics != new.metrics:
        moved.append("metrics")
    if moved:
        keys = ", ".join(moved)
        return Changes(refused=f"{keys} cannot be changed while devd runs: restart it; nothing of the change is taken")
    before = {one.name: one for one in old.resources}
    after = {one.name: one for one in new.resources}
    touches = ((name, touch(before[name], after[name])) for name in after if name in before)
    return Changes(
        removed=tuple(name for name in before if name not in after),
        added=tuple(name for name in after if name not in before),
        touched=tuple((name, what) for name, what in touches if what),
    )


def touch(old: Resource, new: Resource) -> Touch:
    """Return what has to be made anew of one resource."""
    if old.driver != new.driver:
        return Touch.ALL
    found = Touch.NOTHING
    if _differs(old, new, "sandbox", "sandbox_allow"):
        found |= Touch.WORKERS | Touch.SCOUT
    if any(_differs(old, new, key) for key in _OFFER_KEYS):
        found |= Touch.OFFER
    if old.match != new.match or _differs(old.discovery, new.discovery, "period_s", "timeout_s"):
        found |= Touch.SCOUT
    if old.restart != new.restart or old.flap != new.flap or _differs(old.discovery, new.discovery, "linger_s"):
        found |= Touch.POLICY
    if _differs(old.probe, new.probe, "failures", "successes"):
        found |= Touch.POLICY
    if _differs(old.probe, new.probe, "period_s", "timeout_s") or old.probe.as_spec() != new.probe.as_spec():
        found |= Touch.WORKERS | Touch.POLICY
    if old.reset != new.reset:
        found |= Touch.WORKERS | Touch.POLICY
        if (old.reset is None) != (new.reset is None):
            # Whether PreStartContainer is wanted is said at registration.
            found |= Touch.ENDPOINT
    return found


def _differs(old: object, new: object, *names: str) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in names)


def _words(what: Touch) -> str:
    return "+".join(part.name.lower() for part in what if part.name) or "nothing"
