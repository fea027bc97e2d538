"""Which rows of which jobs run next. Pure policy: no clock, no thread; time is an argument.

Jobs of one *lane* (same program, row shapes and inputs without a row axis) share runs. A lane has at most as many
*active* jobs as a run has rows, so that every active job advances in every run: a job of a million rows takes what the
others leave. Lanes take turns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

WASTE = 0.25
"""Largest part of a run that may be padding, where a smaller bucket would be full."""


def buckets(max_rows: int, exact: bool = False) -> tuple[int, ...]:
    """Row counts that runs may have: 1, 2, 4, ... max_rows; ``exact``: every count (kernels that plan nothing)."""
    if exact:
        return tuple(range(1, max_rows + 1))
    powers = [1 << i for i in range(max_rows.bit_length()) if 1 << i < max_rows]
    return (*powers, max_rows)


def bucket(pending: int, sizes: Sequence[int]) -> tuple[int, int]:
    """(rows to run, padded size) for ``pending`` >= 1 rows: the smallest bucket for them, or a full smaller one."""
    if pending >= sizes[-1]:
        return sizes[-1], sizes[-1]
    above = next(i for i, size in enumerate(sizes) if size >= pending)
    size = sizes[above]
    if above > 0 and size - pending > WASTE * size:
        return sizes[above - 1], sizes[above - 1]
    return pending, size


def shares(pending: Sequence[int], room: int) -> list[int]:
    """Divide ``room`` rows: equal shares, and what small jobs do not need goes to the others, the earliest first.

    >>> shares([1000, 2, 3], 8)
    [3, 2, 3]
    """
    given = [0] * len(pending)
    while room > 0:
        hungry = [i for i, n in enumerate(pending) if given[i] < n]
        if not hungry:
            break
        each = max(1, room // len(hungry))
        for i in hungry:
            take = min(each, pending[i] - given[i], room)
            given[i] += take
            room -= take
    return given


@dataclass(frozen=True)
class Lane:
    """What the policy sees of a lane: rows pending of every active job, then of every waiting one, in arrival order."""

    key: Hashable
    active: tuple[int, ...]
    waiting: tuple[int, ...]
    oldest: float
    """When the oldest waiting job arrived."""
    served: float
    """When the lane last ran, -inf if never."""
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """The next run: of which lane, and how many of its waiting jobs join the active ones."""

    key: Hashable
    joining: int


def choose(lanes: Sequence[Lane], now: float, max_wait: float = 0.0) -> Run | float | None:
    """The next run; or the time when there will be one (a job may wait ``max_wait`` seconds); None if idle."""
    ready = [lane for lane in lanes if lane.active or (lane.waiting and _is_due(lane, now, max_wait))]
    if not ready:
        due = [lane.oldest + max_wait for lane in lanes if lane.waiting]
        return min(due) if due else None
    lane = min(ready, key=lambda x: (x.served, x.oldest))
    return Run(lane.key, min(len(lane.waiting), lane.sizes[-1] - len(lane.active)))


def fit(pending: Sequence[int], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Rows of each of at most ``sizes[-1]`` jobs in the next run, at least one each, and the run's padded size."""
    rows, size = bucket(sum(pending), sizes)
    if rows < len(pending):
        # A full smaller bucket would leave a job without a row; the state of every active job advances in every run.
        rows, size = len(pending), next(s for s in sizes if s >= len(pending))
    return shares(pending, rows), size


def _is_due(lane: Lane, now: float, max_wait: float) -> bool:
    return sum(lane.waiting) >= lane.sizes[-1] or now >= lane.oldest + max_wait
