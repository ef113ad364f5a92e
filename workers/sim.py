"""The simulated device's script: what it does at a moment of its worker's life. Pure: script and time in, step out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from devd.workers.errors import SpecError
from devd.workers.misdeeds import HOWS
from devd.workers.params import Params

Deed = Literal[
    "pass", "fail", "hang", "slow", "mute", "crash", "exit", "segv", "exception", "oom", "flood", "misbehave"
]
DEEDS: tuple[Deed, ...] = get_args(Deed)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``for_s`` None lasts for ever; ``takes_s`` None is the deed's own default."""

    do: Deed = "pass"
    for_s: float | None = None
    reason: str = ""
    takes_s: float | None = None
    how: str = "garbage"


Script = tuple[Step, ...]


def parse(script: object, where: str = "script") -> Script:
    """Return a script from plain values (durations in seconds); None or an empty list always passes.

    Raises SpecError naming the step and key.
    """
    if script is None:
        return ()
    if not isinstance(script, list | tuple):
        raise SpecError(f"{where}: {script!r:.80} found, a list of steps is needed")
    return tuple(_step(Params(f"{where}[{index}]", _mapping(one, where, index))) for index, one in enumerate(script))


def step_at(script: Sequence[Step], elapsed_s: float) -> Step:
    """Return the step under way ``elapsed_s`` after the start.

    A script whose steps all have a length repeats; after a step without one nothing comes.
    """
    if not script:
        return Step()
    lengths = [one.for_s for one in script]
    if None not in lengths:
        total_s = sum(length for length in lengths if length is not None)
        if total_s <= 0:
            return script[-1]
        elapsed_s %= total_s
    until_s = 0.0
    for one in script:
        if one.for_s is None:
            return one
        until_s += one.for_s
        if elapsed_s < until_s:
            return one
    return script[-1]


def _step(params: Params) -> Step:
    unknown = sorted(set(params.values) - {"do", "for", "reason", "takes", "how"})
    if unknown:
        raise SpecError(f"{params.where}: unknown keys {unknown}; allowed are do, for, reason, takes, how")
    return Step(
        do=cast("Deed", params.choice("do", DEEDS, "pass")),
        for_s=params.number("for") if params.has("for") else None,
        reason=params.text("reason", ""),
        takes_s=params.number("takes") if params.has("takes") else None,
        how=params.choice("how", HOWS, HOWS[0]),
    )


def _mapping(value: object, where: str, index: int) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where}[{index}]: {value!r:.80} found, a map is needed")
    return value
