"""Every curve and control as rows of a table: for readers, screen readers and spreadsheets."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxplain.sanity.audit import Audit
from onnxplain.sanity.bootstrap import Interval


@dataclass(frozen=True)
class NumberRow:
    """One interval. ``what`` is a level's place and name, or a control."""

    method: str
    measure: str
    kind: str
    what: str
    mean: float
    low: float
    high: float


def rows(audit: Audit) -> list[NumberRow]:
    """Of all methods, measures, levels and controls."""
    found = []
    for finding in audit.findings:
        for measure, curve in finding.curves.items():
            means = [("level", f"{k + 1} {audit.levels[k].name}", values) for k, values in enumerate(curve)]
            means += [("control", name, tables[measure]) for name, tables in finding.controls.items()]
            for kind, what, values in means:
                interval: Interval = audit.bootstrap.interval(values)
                found.append(NumberRow(finding.method, measure, kind, what, interval.mean, interval.low, interval.high))
    return found


def csv_address(numbers: Sequence[NumberRow]) -> str:
    """The table as a data: address to download."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([field.name for field in dataclasses.fields(NumberRow)])
    writer.writerows(dataclasses.astuple(row) for row in numbers)
    return "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()


def number(value: float) -> str:
    """Three digits; an en dash for what is not defined."""
    return f"{value:.3f}" if math.isfinite(value) else "–"
