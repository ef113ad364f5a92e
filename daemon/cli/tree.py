"""Reading the status tree as it comes off the wire: every value checked where it is read, never trusted to be there.

Texts may come from drivers and devices: what would move a terminal's cursor is escaped.
"""

from collections.abc import Mapping, Sequence


def mapping(facts: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a map's map, empty where there is none."""
    value = facts.get(name)
    return {str(key): one for key, one in value.items()} if isinstance(value, Mapping) else {}


def text(facts: Mapping[str, object], name: str, none: str = "-") -> str:
    """Return a value as one printable line; ``none`` for one that is missing, null or empty."""
    value = facts.get(name)
    return none if value is None or value == "" else printable(str(value))


def texts(facts: Mapping[str, object], name: str) -> list[str]:
    """Return a list of texts, each one printable line."""
    value = facts.get(name)
    return [printable(str(one)) for one in value] if _is_list(value) and isinstance(value, Sequence) else []


def number(facts: Mapping[str, object], name: str) -> float | None:
    """Return a number, None where there is none."""
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def resources(status: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the resources of a status tree."""
    return _maps(status, "resources")


def devices(status: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the devices of a status tree."""
    return _maps(status, "devices")


def printable(line: str) -> str:
    """Return a text on one line, with control characters escaped."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in " ".join(line.split()))


def _maps(facts: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    value = facts.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [one for one in value if isinstance(one, Mapping)]


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
