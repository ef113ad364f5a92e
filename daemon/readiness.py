"""Whether devd does what it was deployed for: each resource is registered with the kubelet, or it is told which is not.

Health is another question: a daemon that waits for its kubelet is well, and must not be replaced for it.
"""

from collections.abc import Mapping
from itertools import islice

from devd.daemon.claimed_text import plain
from devd.daemon.endpoint import ResourceEndpoint

MOST_NAMED = 4
"""Resources that the answer names: the text ends up in the events of a pod."""
WHY_CHARS = 120


def unready(
    endpoints: Mapping[str, ResourceEndpoint], problems: Mapping[str, str], undiscovered: Mapping[str, str]
) -> str:
    """Return which resources the kubelet does not have and why, in one line; empty when it has all, or there are none.

    ``problems`` has what keeps a resource from being served at all, by its name; ``undiscovered`` why nobody has looked
    yet what there is of one: an empty list says nothing of what the node has.
    """
    missing = {name: one for name, one in endpoints.items() if one.status.state != "registered"}
    if not missing:
        unknown = [f"{name} ({plain(why, WHY_CHARS)})" for name, why in islice(undiscovered.items(), MOST_NAMED)]
        return (
            f"{len(undiscovered)} of {len(endpoints)} resources not discovered: {'; '.join(unknown)}" if unknown else ""
        )
    told = [_why(name, one, problems) for name, one in islice(missing.items(), MOST_NAMED)]
    if len(missing) > MOST_NAMED:
        told.append(f"{len(missing) - MOST_NAMED} more")
    return f"{len(missing)} of {len(endpoints)} resources not registered with the kubelet: {'; '.join(told)}"


def _why(name: str, endpoint: ResourceEndpoint, problems: Mapping[str, str]) -> str:
    status = endpoint.status
    why = problems.get(name) or status.last_error
    return f"{name} ({plain(f'{status.state}: {why}' if why else status.state, WHY_CHARS)})"
