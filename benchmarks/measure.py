"""Timing that survives a shared machine: contestants take turns, and only ratios within one turn are compared."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

REST = 0.1
"""Seconds before every timed call: thread pools spin for a while after their work, and would slow the next one."""


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """The shorter of ``repeats`` times of one call, after one that is not counted."""
    call()
    return min(_timed(call) for _ in range(repeats))


def turns(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Seconds]:
    """Seconds of every contestant in each of ``repeats`` turns, (repeats,) each.

    In every turn each contestant runs once, beginning with another one each time: what slows the machine for a while
    slows them all, and none always runs after the same neighbour.
    """
    names = list(contestants)
    for call in contestants.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_timed(contestants[name]))
    return {name: np.asarray(values) for name, values in times.items()}


@dataclass(frozen=True)
class Ratio:
    """The ratio of two contestants' times within the same turns: median, and the middle half of the turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, slower: Seconds, faster: Seconds) -> Ratio:
        low, median, high = np.percentile(slower / faster, [25, 50, 75])
        return cls(float(median), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def milliseconds(times: Seconds) -> str:
    """The median, for a table."""
    return f"{np.median(times) * 1e3:.0f}" if np.median(times) >= 0.1 else f"{np.median(times) * 1e3:.1f}"


def relative_difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """|a - b| / |b| in the L2 norm."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(np.asarray(b, np.float64)))


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as README takes it."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(packages: Iterable[str] = ("onnxplain", "onnxruntime", "torch", "captum")) -> str:
    """Date, processor and versions: what a figure is worth nothing without."""
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{date.today()}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _timed(call: Callable[[], object]) -> float:
    time.sleep(REST)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
