"""Draws docs/lifecycle.md from the lifecycle's own tables: ``python -m devd.daemon.lifecycle_page``."""

import sys

from devd.daemon import events as ev
from devd.daemon import lifecycle, moves
from devd.daemon.device_state import (
    LEASE_SLACK_S,
    PHASES,
    WORKER_PHASES,
    Phase,
)

INTRO = """# The life of a device

This page is drawn from the code (`make docs`); a test fails when it differs.

Each device lives in the front as one value, changed by one pure function: `step(state, event, policy) -> (state,
effects)`. It does no I/O and reads no clock; the shell around it (`daemon/supervisor.py`) delivers events and runs
effects. A device is offered **Healthy** while it has a live **lease**: a passing probe grants one, good for `period +
timeout + {slack:g} s` from the report's arrival. A failing probe (the `failures`-th in a row), a missed deadline, a
broken protocol or the device's absence ends it. Nothing but a passing probe makes a device Healthy, and a worker that
dies and is back within its lease never shows at the kubelet. A device that is well may still be withheld: cordoned by
an operator, or held back after repeated flaps until it has been well for long enough.

```mermaid
stateDiagram-v2
    [*] --> STARTING: discovered
    [*] --> STOPPING: an earlier devd's worker still holds it - fenced - or the disk has not told
    [*] --> FAILED: an earlier devd gave it up
    STARTING --> SERVING: first report
    STARTING --> STOPPING: no word in {start:g} s
    SERVING --> RESETTING: PreStart
    RESETTING --> SERVING: answered
    SERVING --> STOPPING: report overdue (hung), or protocol broken
    RESETTING --> STOPPING: answer overdue (hung)
    STARTING --> BACKOFF: worker died
    SERVING --> BACKOFF: worker died
    RESETTING --> BACKOFF: worker died
    STOPPING --> BACKOFF: exit seen
    STOPPING --> STARTING: the disk has told, or devd uncordon
    STOPPING --> STOPPING: no exit in {wedged:g} s - fenced
    BACKOFF --> STARTING: pause over
    BACKOFF --> FAILED: restart intensity exceeded
    FAILED --> STARTING: slow retry, or devd restart
    SERVING --> LEAVING: device gone, or its configuration changed
    LEAVING --> STARTING: exit seen, configuration changed
    LEAVING --> ABSENT: exit seen
    LEAVING --> STOPPING: no exit in {leave:g} s
    ABSENT --> STARTING: device back
    ABSENT --> [*]: linger over
```
"""


def page() -> str:
    """Return the page's Markdown."""
    parts = [
        INTRO.format(
            slack=LEASE_SLACK_S,
            start=moves.START_TIMEOUT_S,
            wedged=moves.WEDGED_AFTER_S,
            leave=moves.LEAVE_TIMEOUT_S,
        ),
        "## Phases\n",
        "| phase | meaning | its deadline means | a process may exist |",
        "|---|---|---|---|",
        *(
            f"| {phase.name} | {PHASES[phase][0]} | {PHASES[phase][1]} | {'yes' if phase in WORKER_PHASES else 'no'} |"
            for phase in Phase
        ),
        "\n## Events\n",
        "A name is the handler that takes the event; `dropped` came too late to matter; `illegal` would be a bug of",
        "the front and raises with the device's whole state. An event about another incarnation than the present one",
        "is always dropped.",
        "",
        "| event | " + " | ".join(phase.name for phase in Phase) + " |",
        "|---|" + "---|" * len(Phase),
        *(f"| {kind.__name__} | " + " | ".join(_cell(row[phase]) for phase in Phase) + " |" for kind, row in _rows()),
        "\n## What the events mean\n",
        *(f"- **{kind.__name__}**: {_first_line(kind)}" for kind, _ in _rows()),
        "\n## Effects\n",
        *(f"- **{kind.__name__}**: {_first_line(kind)}" for kind in _effects()),
        "",
    ]
    return "\n".join(parts)


def _rows() -> list[tuple[type, dict[Phase, object]]]:
    return list(lifecycle.TABLE.items())


def _effects() -> tuple[type, ...]:
    return (ev.Spawn, ev.AskStop, ev.Kill, ev.SendReset, ev.Answer, ev.Record, ev.Forget)


def _cell(handler: object) -> str:
    if handler is lifecycle.ILLEGAL:
        return "illegal"
    name = str(getattr(handler, "__name__", ""))
    return "dropped" if name == "_drop" else name.strip("_").replace("_", " ")


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.stdout.write(page())
