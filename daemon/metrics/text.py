"""Prometheus' text format, version 0.0.4: metrics and samples in, the page that a scraper reads out.

Written here, not by the prometheus_client library: devd's numbers are held elsewhere already, and all that is left is
to print them. The library would bring a registry, a threaded web server and 1.4 MB into the process that answers the
kubelet; its parser reads these pages in the tests.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: declared once, in ``catalog``. ``labels`` are all that its samples have, but a histogram's le."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram holds: ``counts`` by bucket, the last one for all beyond ``bounds``; not cumulative."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


def labels(values: Mapping[str, str]) -> str:
    """Return labels as they stand behind a metric's name; empty for none."""
    if not values:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def number(value: float) -> str:
    """Return a value as the format has it; booleans are 1 and 0."""
    if isinstance(value, int):
        return str(int(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


class Page:
    """Gathers samples, each metric's together, and prints them in the order of ``metrics``."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._lines: dict[str, list[str]] = {}
        self._metrics = tuple(metrics)
        for metric in self._metrics:
            self._lines[metric.name] = []

    def add(self, metric: Metric, value: float | None, label_text: str = "") -> None:
        """Add one sample, with what ``labels`` returned for it; None is no sample."""
        if value is not None:
            self._lines[metric.name].append(f"{metric.name}{label_text} {number(value)}\n")

    def add_distribution(self, metric: Metric, held: Distribution, of: Mapping[str, str]) -> None:
        """Add a histogram's samples for one set of label values."""
        lines, so_far = self._lines[metric.name], 0
        for bound, count in zip((*held.bounds, math.inf), held.counts, strict=True):
            so_far += count
            lines.append(f"{metric.name}_bucket{labels({**of, 'le': _bound(bound)})} {so_far}\n")
        plain = labels(of)
        lines.append(f"{metric.name}_sum{plain} {number(held.total)}\n")
        lines.append(f"{metric.name}_count{plain} {so_far}\n")

    def render(self) -> str:
        """Return the page; a metric without samples is left out."""
        parts: list[str] = []
        for metric in self._metrics:
            lines = self._lines[metric.name]
            if lines:
                text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
                parts.append(f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.kind}\n")
                parts += lines
        return "".join(parts)


def _bound(value: float) -> str:
    return number(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
