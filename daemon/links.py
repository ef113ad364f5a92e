"""Which devices of a resource are joined directly, from what their drivers tell of the other ends. Pure."""

from collections.abc import Mapping

NAMES = ("address", "name", "uuid")
"""Properties by which a driver may name the other end of a link, beside the device's id."""


def joined(properties: Mapping[str, Mapping[str, str]]) -> dict[str, frozenset[str]]:
    """Return the ids each device's property ``links`` names; ends that are no device of the resource are left out."""
    if not any(one.get("links") for one in properties.values()):
        return dict.fromkeys(properties, frozenset())
    ids = {device: {device} for device in properties}
    for device, known in properties.items():
        for name in NAMES:
            if known.get(name):
                # Several devices may share an address: the parts of one card.
                ids.setdefault(known[name], set()).add(device)
    return {
        device: frozenset(
            other for end in _ends(known.get("links", "")) for other in ids.get(end, ()) if other != device
        )
        for device, known in properties.items()
    }


def _ends(text: str) -> list[str]:
    return [end.strip() for end in text.split(",") if end.strip()]
