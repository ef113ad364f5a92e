"""What a scout may list: devices whose nodes its resource selects. A scout is no more trusted than a worker."""

from collections.abc import Iterable

from devd.daemon.config import Resource
from devd.ipc.messages import Listing
from devd.ipc.patterns import matches


def foreign(resource: Resource, listing: Listing) -> str:
    """Return a path in a listing that the resource's selector does not name, or nothing."""
    paths = [node.path for device in listing.devices for node in device.nodes]
    match = resource.match
    if resource.driver == "sim":
        named = {str(one["path"]) for one in _maps(match.get("devices")) if one.get("path")}
        return next((path for path in paths if path not in named), "")
    patterns, excluded = _texts(match.get("path")), _texts(match.get("exclude"))
    for path in paths:
        if not _fits(path, patterns) or _fits(path, excluded):
            return path
    return ""


def _fits(path: str, patterns: Iterable[str]) -> bool:
    return any(matches(path, pattern) for pattern in patterns)


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _maps(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list | tuple) else []
