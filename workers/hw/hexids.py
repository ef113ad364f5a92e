"""Hexadecimal ids in a selection, as people write them: 0x8086, 10DE and 10de are what sysfs writes as 10de."""

from collections.abc import Collection, Mapping

EXCLUDE = "exclude"


def plain(match: Mapping[str, object], keys: Collection[str]) -> dict[str, object]:
    """Return a ``match`` whose texts of these keys, excluded ones too, are in small letters and without 0x."""
    found = {key: _plain(value) if key in keys else value for key, value in match.items()}
    excluded = match.get(EXCLUDE)
    if isinstance(excluded, Mapping):
        found[EXCLUDE] = plain(excluded, keys)
    return found


def _plain(value: object) -> object:
    if isinstance(value, str):
        return ":".join(part.removeprefix("0x") for part in value.lower().split(":"))
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
