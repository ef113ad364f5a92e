"""Which devices a resource takes: globs on a device's properties, to include and to exclude."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devd.workers.errors import SpecError
from devd.workers.params import Params


@dataclass(frozen=True, slots=True)
class Selection:
    """Every key of ``include`` must fit (one of its globs), and no key of ``exclude`` may."""

    include: Mapping[str, Sequence[str]]
    exclude: Mapping[str, Sequence[str]]

    def takes(self, properties: Mapping[str, str]) -> bool:
        """Return whether a device with these properties is meant."""
        if any(_fits(properties.get(key, ""), globs) for key, globs in self.exclude.items()):
            return False
        return all(_fits(properties.get(key, ""), globs) for key, globs in self.include.items())

    def words(self, otherwise: str) -> str:
        """Return the selection for people: "model=Samsung*", or ``otherwise`` when everything is taken."""
        parts = [f"{key}={','.join(globs)}" for key, globs in self.include.items()]
        return " ".join(parts) or otherwise


def select(match: Mapping[str, object], keys: Sequence[str], others: Sequence[str] = ()) -> Selection:
    """Return the selection a ``match`` asks for.

    ``keys`` are the properties that may be chosen by, ``others`` the driver's own keys. Raises SpecError for any
    further key: a misspelt one would take every device there is.
    """
    _check_keys("match", match, (*keys, *others, "exclude"))
    excluded = match.get("exclude")
    if excluded is None:
        excluded = {}
    if not isinstance(excluded, Mapping):
        raise SpecError(f"match.exclude: {excluded!r:.80} found, a map is needed")
    _check_keys("match.exclude", excluded, keys)
    return Selection(_globs(Params("match", match), keys), _globs(Params("match.exclude", excluded), keys))


def _globs(params: Params, keys: Sequence[str]) -> dict[str, list[str]]:
    return {key: params.texts(key) for key in keys if params.has(key)}


def _check_keys(where: str, found: Mapping[str, object], allowed: Sequence[str]) -> None:
    for key in found:
        if key not in allowed:
            raise SpecError(f"{where}.{key}: unknown, allowed are {', '.join(allowed)}")


def _fits(value: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(value, one) for one in globs)
