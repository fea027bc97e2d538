"""Curves over the levels with their bands and controls, as coordinates that the page draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxplain.sanity.audit import Audit
from onnxplain.sanity.bootstrap import Interval
from onnxplain.sanity.controls import RANDOM_NETWORKS
from onnxplain.sanity.finding import Finding

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 190, 46, 8, 8, 62
LABELS = 18
"""More names of levels than these do not fit under a chart."""


@dataclass(frozen=True)
class Line:
    """A control: its height, its band, and its name."""

    name: str
    y: float
    top: float
    height: float
    mean: float


@dataclass(frozen=True)
class Panel:
    """One method by one measure."""

    method: str
    measure: str
    curve: str
    """Points of the mean."""
    band: str
    """Polygon of the interval."""
    dots: tuple[tuple[float, float, str], ...]
    """x, y, and what is said of it."""
    null: Line | None
    random: Line | None
    ticks: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]
    said: str


def panels(audit: Audit) -> dict[str, list[Panel]]:
    """Measure -> a panel per method."""
    measures = dict.fromkeys(measure for finding in audit.findings for measure in finding.curves)
    return {
        measure: [_panel(audit, finding, measure) for finding in audit.findings if measure in finding.curves]
        for measure in measures
    }


def _panel(audit: Audit, finding: Finding, measure: str) -> Panel:
    intervals = [audit.bootstrap.interval(values) for values in finding.curves[measure]]
    xs = [_x(k, len(intervals)) for k in range(len(intervals))]
    known = [(x, each) for x, each in zip(xs, intervals, strict=True) if math.isfinite(each.mean)]
    step = max(1, math.ceil(len(xs) / LABELS))
    null = _line(audit, finding, finding.null, measure)
    end = f"{intervals[-1].mean:.2f}" if known else "undefined"
    return Panel(
        method=finding.method,
        measure=measure,
        curve=" ".join(f"{x:.1f},{_y(each.mean):.1f}" for x, each in known),
        band=_polygon(known),
        dots=tuple(
            (round(x, 1), round(_y(each.mean), 1), _said(audit.levels[k].name, each))
            for k, (x, each) in enumerate(zip(xs, intervals, strict=True))
            if math.isfinite(each.mean)
        ),
        null=null,
        random=_line(audit, finding, RANDOM_NETWORKS, measure),
        ticks=tuple((_y(value), f"{value:g}") for value in (-0.5, 0.0, 0.5, 1.0)),
        levels=tuple((round(x, 1), _short(audit.levels[k].name)) for k, x in enumerate(xs) if k % step == 0),
        said=f"{finding.method}: {measure} over {len(xs)} levels, at the last {end}"
        + (f", null {null.mean:.2f}" if null else ""),
    )


def _polygon(known: Sequence[tuple[float, Interval]]) -> str:
    there = [f"{x:.1f},{_y(each.high):.1f}" for x, each in known]
    back = [f"{x:.1f},{_y(each.low):.1f}" for x, each in reversed(known)]
    return " ".join(there + back)


def _line(audit: Audit, finding: Finding, control: str, measure: str) -> Line | None:
    if control not in finding.controls:
        return None
    interval = audit.bootstrap.interval(finding.controls[control][measure])
    if not math.isfinite(interval.mean):
        return None
    top, bottom = _y(interval.high), _y(interval.low)
    return Line(control, round(_y(interval.mean), 1), round(top, 1), round(bottom - top, 1), interval.mean)


def _x(k: int, n: int) -> float:
    room = WIDTH - LEFT - RIGHT - 12
    return LEFT + 6 + (room / 2 if n == 1 else k * room / (n - 1))


def _y(value: float) -> float:
    """-0.5 at the bottom, 1 at the top; what is lower stays at the bottom."""
    return TOP + (1.0 - min(max(value, -0.5), 1.0)) / 1.5 * (HEIGHT - TOP - BOTTOM)


def _said(level: str, interval: Interval) -> str:
    return f"{level}: {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _short(name: str) -> str:
    return name if len(name) <= 14 else "…" + name[-13:]
