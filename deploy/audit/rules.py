"""The rules: each takes what was read and returns what is wrong."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.audit import advisories, pins, project
from deploy.audit.advisories import Known
from deploy.audit.findings import Finding
from deploy.audit.pins import Pin, Pins
from deploy.audit.project import Wanted

CONSTRAINTS = "constraints.txt"
RUNTIME_LOCK = "deploy/image/requirements.lock"
BUILD_LOCK = "deploy/image/build-requirements.lock"
TOOLS_LOCK = "deploy/tools/requirements.txt"
RELOCK = "run deploy/image/lock.sh"
REPIN = "run make constraints"


def check(root: Path, today: date, environment: Mapping[str, Version] | None) -> list[Finding]:
    """Return everything that is wrong below ``root``; ``environment`` (name -> version) is not looked at when None."""
    constraints = pins.read(root, CONSTRAINTS, hashed=False)
    names = {
        RUNTIME_LOCK,
        BUILD_LOCK,
        TOOLS_LOCK,
        *(str(path.relative_to(root)) for path in root.glob("deploy/**/*.lock")),
    }
    locks = {name: pins.read(root, name, hashed=True) for name in sorted(names)}
    wanted = project.read(root)
    everything = [constraints, *locks.values()]
    found = [finding for one in everything for finding in one.findings]
    found += agree(constraints, locks[RUNTIME_LOCK])
    found += pinned(wanted.runtime, constraints, REPIN)
    found += pinned(wanted.extras, constraints, REPIN)
    found += pinned(wanted.runtime, locks[RUNTIME_LOCK], RELOCK)
    found += pinned(wanted.build, locks[BUILD_LOCK], RELOCK)
    found += known(root, today, everything, wanted)
    if environment is not None:
        found += drift(constraints, environment, project.closure((*wanted.runtime, *wanted.extras)))
        found += complete(locks[RUNTIME_LOCK], project.closure(wanted.runtime))
    return found


def agree(constraints: Pins, lock: Pins) -> Iterator[Finding]:
    """Yield each package that the image has otherwise than the tests."""
    for pin in lock.by_name.values():
        tested = constraints.by_name.get(pin.name)
        if tested is not None and tested.version != pin.version:
            yield Finding(pin.where, f"{pin.name} {pin.version}, {tested.where} has {tested.version}", RELOCK)
        if tested is None and pin.applies:
            yield Finding(
                pin.where, f"{pin.name} is not in {CONSTRAINTS}: no test ran with it", f"{REPIN}, then {RELOCK}"
            )


def pinned(requirements: Iterable[Requirement], pins_: Pins, remedy: str) -> Iterator[Finding]:
    """Yield each requirement of pyproject.toml that a file does not pin, or pins outside its range."""
    for one in requirements:
        pin = pins_.by_name.get(canonicalize_name(one.name))
        if pin is None:
            yield Finding(pins_.where, f"{one.name} of pyproject.toml is not pinned", remedy)
        elif not one.specifier.contains(pin.version, prereleases=True):
            found = f"{pin.name} {pin.version} is outside pyproject.toml's {one.specifier}"
            yield Finding(pin.where, found, f"change the range, or {remedy}")


def drift(constraints: Pins, environment: Mapping[str, Version], ours: set[str]) -> Iterator[Finding]:
    """Yield each difference between what is pinned and what is installed; ``ours`` are there because of devd."""
    for pin in constraints.by_name.values():
        version = environment.get(pin.name)
        if version is None and pin.name in ours:
            yield Finding(
                pin.where, f"{pin.name} {pin.version} is not installed", "run make setup, or make constraints"
            )
        elif version is not None and version != pin.version:
            found = f"{pin.name} {pin.version}, installed is {version}"
            yield Finding(pin.where, found, f"run make -B setup, or to keep it: {REPIN}, {RELOCK}")
    for name in sorted(set(environment) - set(constraints.by_name)):
        found = f"{name} {environment[name]} is installed and not pinned"
        if name in ours:
            yield Finding(CONSTRAINTS, found, REPIN)
        else:
            yield Finding(CONSTRAINTS, found, "nothing of devd asks for it", fatal=False)


def complete(lock: Pins, needed: set[str]) -> Iterator[Finding]:
    """Yield each package that the daemon needs and the image would lack: nothing resolves dependencies there."""
    for name in sorted(needed - set(lock.by_name)):
        yield Finding(lock.where, f"{name}, which a dependency needs, is not locked", RELOCK)


def known(root: Path, today: date, everything: Iterable[Pins], wanted: Wanted) -> Iterator[Finding]:
    """Yield each pin, and each least version of pyproject.toml, that an advisory speaks against."""
    try:
        list_ = advisories.load(root / advisories.FILE)
    except (OSError, ValueError) as error:
        yield Finding(advisories.FILE, str(error), "it must be readable, see those that are there")
        return
    yield from list_.age(today)
    for pin in (pin for one in everything for pin in one.by_name.values()):
        yield from _against(list_, pin, f"pip install it, {REPIN}, {RELOCK}")
    for requirement in (*wanted.runtime, *wanted.extras, *wanted.build):
        for specifier in requirement.specifier:
            if specifier.operator in {">=", "~=", "=="}:
                name = canonicalize_name(requirement.name)
                pin = Pin(name, Version(specifier.version), "pyproject.toml")
                yield from _against(list_, pin, "raise the lower bound")


def _against(list_: Known, pin: Pin, remedy: str) -> Iterator[Finding]:
    for one in list_.of(pin.name, pin.version):
        found = f"{pin.name} {pin.version} has {' '.join(one.ids)}: {one.summary} ({one.source})"
        yield Finding(pin.where, found, f"take {one.fixed} or newer: {remedy}")
