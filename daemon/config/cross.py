"""What no value can tell by itself: checks of several values together.

They work on the raw values, beside the models, so that one wrong value anywhere does not keep these problems back.
Whatever has not the shape it should have is passed over here: the models report it.
"""

from collections.abc import Iterator, Mapping, Sequence

from devd.daemon.config import given, hardware, placeholders
from devd.daemon.config.document import Place
from devd.daemon.config.errors import KeyPath, Problem
from devd.daemon.config.match import MAX_SIMULATED, SimMatch
from devd.daemon.config.model import MAX_RESOURCES, Restart
from devd.daemon.config.rules import duration_text, meant, seconds_of
from devd.daemon.config.translate import problem_at

_IOC_WRITE = 1 << 30
"""asm-generic/ioctl.h: the direction in which the driver takes data."""
_TESTS = ("equals", "matches", "range")
_DEVICE_COUNTS = range(1, MAX_SIMULATED + 1)

Map = Mapping[str, object]


def check(data: object, root: Place) -> list[Problem]:
    """Return the problems of values that do not go together."""
    found: list[Problem] = []
    names: dict[str, KeyPath] = {}
    ids: dict[str, KeyPath] = {}
    named: dict[str, tuple[str, KeyPath]] = {}
    for index, resource in _maps(_map(data).get("resources")):
        path: KeyPath = ("resources", index)
        if index >= MAX_RESOURCES:
            break  # reported by the model; the rest could be too many to compare
        found += _duplicate(root, names, resource.get("name"), (*path, "name"), "resource name")
        found += given.same_variable(root, resource, path, named)
        found += given.unknown_properties(root, resource, path)
        found += given.unspecifiable(root, resource, path)
        found += _resource(root, resource, path)
        if resource.get("driver") == "sim":
            found += _simulated(root, resource, path, ids)
        if resource.get("driver") == "node":
            found += _nodes(root, resource.get("match"), (*path, "match"), ids)
    return found


def _resource(root: Place, resource: Map, path: KeyPath) -> Iterator[Problem]:
    probe, reset = _map(resource.get("probe")), _map(resource.get("reset"))
    if probe.get("kind") == "sysfs":
        yield from _exactly_one(root, probe, (*path, "probe"), _TESTS)
    if probe.get("kind") == "ioctl":
        yield from _reading_request(root, probe.get("request"), (*path, "probe", "request"))
    if "script" in probe:
        yield from _script(root, probe.get("script"), (*path, "probe", "script"))
    yield from _driver_words(root, resource, path)
    for section, key in ((probe, "probe"), (reset, "reset")):
        if section.get("kind") == "exec":
            yield from _program(root, section.get("command"), (*path, key, "command"))
    yield from _backoff(root, _map(resource.get("restart")), (*path, "restart"))


def _driver_words(root: Place, resource: Map, path: KeyPath) -> Iterator[Problem]:
    """Check what only a driver has: its signals, its resets, what it can select by."""
    driver = resource.get("driver")
    probe, reset = _map(resource.get("probe")), _map(resource.get("reset"))
    ours = isinstance(driver, str) and driver in (*hardware.HARDWARE, "node", "sim")
    if isinstance(driver, str) and ours:
        if probe.get("kind", "driver") == "driver":
            names = hardware.SIGNALS.get(driver, ())
            yield from _unknown(root, _map(probe.get("signals")), names, (*path, "probe", "signals"), "signal")
        if reset.get("kind") == "driver":
            yield from _method(root, driver, reset.get("method"), (*path, "reset", "method"))
            yield from _way(root, driver, reset, (*path, "reset", "by"))
    if ours and driver != "nvidia" and _map(probe.get("xids")):
        yield problem_at(root, (*path, "probe", "xids"), "XIDs are NVIDIA's: this key goes with driver nvidia only")
    for xid in _map(probe.get("xids")):
        if not str(xid).isdecimal():
            yield problem_at(
                root, (*path, "probe", "xids", xid), "the key is the number of an XID", "a number in quotes"
            )
    match = resource.get("match")
    if driver in ("pci", "usb") and isinstance(match, Mapping) and not set(match) - {"nodes", "identity", "exclude"}:
        yield problem_at(root, (*path, "match"), "nothing selects: not every device there is can be meant")


def _unknown(root: Place, words: Map, names: Sequence[str], path: KeyPath, what: str) -> Iterator[Problem]:
    for name in words:
        if name not in names:
            hint = meant(str(name), names)
            yield problem_at(root, (*path, name), f"no {what} of this driver{hint}", ", ".join(names) or "none")


def _method(root: Place, driver: str, method: object, path: KeyPath) -> Iterator[Problem]:
    names = hardware.METHODS.get(driver, ())
    if not names:
        message = f"driver {driver} has no resets of its own: take kind exec or sysfs"
        yield problem_at(root, (*path[:-1], "kind"), message)
    elif isinstance(method, str) and method not in names:
        yield problem_at(root, path, f"no reset of this driver{meant(method, names)}", ", ".join(names))


def _way(root: Place, driver: str, reset: Map, path: KeyPath) -> Iterator[Problem]:
    by, method = reset.get("by"), reset.get("method")
    ways = hardware.WAYS.get(driver, ())
    if not isinstance(by, str):
        return
    if method in hardware.METHODS.get(driver, ()) and (method != "function" or not ways):
        message = f"this key goes with method function of {' and '.join(hardware.WAYS)} only"
        yield problem_at(root, path, message, "the key left out")
    elif ways and by not in ways:
        yield problem_at(root, path, f"no way to reset of driver {driver}{meant(by, ways)}", ", ".join(ways))


def _nodes(root: Place, match: object, where: KeyPath, ids: dict[str, KeyPath]) -> Iterator[Problem]:
    if isinstance(match, Mapping):
        yield from _exactly_one(root, match, where, ("path", "groups"))
    for index, group in _maps(_map(match).get("groups")):
        yield from _duplicate(root, ids, group.get("name"), (*where, "groups", index, "name"), "device id")


def _simulated(root: Place, resource: Map, path: KeyPath, ids: dict[str, KeyPath]) -> Iterator[Problem]:
    match = _map(resource.get("match"))
    where: KeyPath = (*path, "match")
    if isinstance(resource.get("match"), Mapping):
        yield from _exactly_one(root, match, where, ("count", "devices"))
    if match.get("prefix") is not None and match.get("count") is None:
        yield problem_at(root, (*where, "prefix"), "this key goes with count only")
    yield from _sim_ids(root, match, where, ids)
    for index, device in _maps(match.get("devices")):
        yield from _script(root, device.get("script"), (*where, "devices", index, "script"))
    yield from _attribute_without_node(root, _map(resource.get("reset")), match, (*path, "reset", "attribute"))


def _sim_ids(root: Place, match: Map, where: KeyPath, ids: dict[str, KeyPath]) -> Iterator[Problem]:
    """Ids are unique across all resources: the kubelet finds a pod by the id alone."""
    for index, device in _maps(match.get("devices")):
        yield from _duplicate(root, ids, device.get("name"), (*where, "devices", index, "name"), "device id")
    count, prefix = match.get("count"), match.get("prefix", SimMatch.model_fields["prefix"].default)
    if type(count) is int and count in _DEVICE_COUNTS and isinstance(prefix, str):
        path = (*where, "prefix" if "prefix" in match else "count")
        taken = [name for name in (f"{prefix}{number}" for number in range(count)) if name in ids]
        if taken:
            yield from _duplicate(root, ids, taken[0], path, "device id")
        for number in range(count):
            ids.setdefault(f"{prefix}{number}", path)


def _duplicate(root: Place, seen: dict[str, KeyPath], name: object, path: KeyPath, what: str) -> Iterator[Problem]:
    if not isinstance(name, str):
        return
    first = seen.setdefault(name, path)
    if first != path:
        place = root.at(first)
        line = place.shown_line if place is not None else 1
        yield problem_at(root, path, f"the {what} {name} is given twice, first on line {line}", "each once")


def _exactly_one(root: Place, section: Map, path: KeyPath, keys: Sequence[str]) -> Iterator[Problem]:
    there = [key for key in keys if section.get(key) is not None]
    if len(there) == 1:
        return
    wanted = f"exactly one of {', '.join(keys)}"
    found = ", ".join(there) or "none of them"
    # With too many the line of the last one is shown, with none that of the section.
    place = root.at((*path, there[-1])) if there else None
    problem = problem_at(root, path, f"{wanted} is needed", wanted, found)
    yield (
        problem
        if place is None
        else Problem(place.key_line, problem.key, problem.found, problem.allowed, problem.message)
    )


def _program(root: Place, command: object, path: KeyPath) -> Iterator[Problem]:
    if isinstance(command, list) and command and isinstance(command[0], str) and not command[0].startswith("/"):
        message = "the program must be an absolute path: no shell and no PATH is searched"
        yield problem_at(root, (*path, 0), message, "an absolute path")


def _reading_request(root: Place, request: object, path: KeyPath) -> Iterator[Problem]:
    if isinstance(request, int) and request & _IOC_WRITE:
        message = "this request writes (bit 30, _IOC_WRITE, is set): a probe changes nothing"
        yield problem_at(root, path, message, "a request that only reads")


def _script(root: Place, script: object, path: KeyPath) -> Iterator[Problem]:
    steps = script if isinstance(script, list) else []
    for index, step in _maps(steps):
        if step.get("for") is None and index + 1 < len(steps):
            message = "a step without for lasts for ever: the steps behind it never come"
            yield problem_at(root, (*path, index), message, "for in every step but the last")


def _backoff(root: Place, restart: Map, path: KeyPath) -> Iterator[Problem]:
    defaults = Restart()
    first_s = seconds_of(restart["backoff"]) if "backoff" in restart else defaults.backoff_s
    most_s = seconds_of(restart["backoff_max"]) if "backoff_max" in restart else defaults.backoff_max_s
    if first_s is not None and most_s is not None and first_s > most_s:
        key = "backoff_max" if "backoff_max" in restart else "backoff"
        allowed = f"backoff ({duration_text(first_s)}) at most backoff_max ({duration_text(most_s)})"
        yield problem_at(root, (*path, key), "the first pause is longer than the longest one", allowed)


def _attribute_without_node(root: Place, reset: Map, match: Map, path: KeyPath) -> Iterator[Problem]:
    """Refuse attributes that need a node where devices have none: simulated ones without a path."""
    attribute = reset.get("attribute")
    if reset.get("kind") != "sysfs" or not isinstance(attribute, str):
        return
    devices = [device for _, device in _maps(match.get("devices"))]
    if devices and all(device.get("path") is not None for device in devices):
        return
    if not attribute.startswith("/") or placeholders.used(attribute) & {"major", "minor"}:
        message = "simulated devices without a path have no directory in sysfs"
        yield problem_at(root, path, message, "an absolute path without {major} and {minor}, or a path for each device")


def _map(value: object) -> Map:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> Iterator[tuple[int, Map]]:
    """Yield the entries of a list that are maps, with their positions."""
    for index, one in enumerate(value if isinstance(value, list) else []):
        if isinstance(one, dict):
            yield index, one
