"""Bounds on what untrusted processes say of themselves before it is kept, shown or sent on."""

from dataclasses import replace

from devd.ipc.messages import Findings, Health, Sandbox

REASON_CHARS = 500
"""The kubelet's pod status and a terminal's line have no use for more."""
WORD_CHARS = 120
LAYERS = 40
"""More layers than any sandbox has."""
SIGNALS = 64
"""More signals than any driver has."""


def plain(text: str, most: int) -> str:
    """Return a text on one line, without control characters (a terminal would obey them), cut to ``most``."""
    cut = text[: most + 1]
    shown = "".join(one if one.isprintable() else " " for one in cut)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def bounded_health(health: Health) -> Health:
    """Return a health message with its texts bounded."""
    return replace(
        health,
        reason=plain(health.reason, REASON_CHARS),
        activity=plain(health.activity, WORD_CHARS),
        probe_kind=plain(health.probe_kind, WORD_CHARS),
    )


def bounded_sandbox(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox report with its texts and their number bounded."""
    missing = list(sandbox.missing.items())[:LAYERS]
    return Sandbox(
        level=plain(sandbox.level, WORD_CHARS),
        active=tuple(plain(one, WORD_CHARS) for one in sandbox.active[:LAYERS]),
        missing={plain(layer, WORD_CHARS): plain(why, WORD_CHARS) for layer, why in missing},
    )


def bounded_findings(found: Findings) -> Findings:
    """Return what a driver's probe knows with its texts and their number bounded; the baseline as it is."""
    notes = list(found.notes.items())[:SIGNALS]
    return replace(
        found,
        offered=tuple(plain(one, WORD_CHARS) for one in found.offered[:SIGNALS]),
        checked=tuple(plain(one, WORD_CHARS) for one in found.checked[:SIGNALS]),
        notes={plain(name, WORD_CHARS): plain(text, REASON_CHARS) for name, text in notes},
    )
