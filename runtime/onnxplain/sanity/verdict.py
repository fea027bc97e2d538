"""Is a method sensitive to the parameters? Read from how much of a similarity above its null is left.

``retained = (similarity - null) / (1 - null)``: 1 for maps that did not change, 0 for maps as unlike as unrelated ones.
Its mean over the levels is held against a limit, with the interval over draws and images. No method is ranked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxplain.sanity.bootstrap import Array, Bootstrap, Interval, mean

FEWEST = 5
"""Draws times images from which an interval is more than the distance of two numbers."""
SENSITIVE, INSENSITIVE, UNDECIDED = "sensitive", "insensitive", "undecided"


@dataclass(frozen=True)
class Verdict:
    """Of one method by one measure."""

    verdict: str
    retained: Interval
    null: str
    """The control that it is held against."""
    null_mean: float
    reason: str
    half: int | None
    """Number of the first level, from 1, at which half or less is retained; None where that never happens."""


def judge(curve: Array, null_name: str, null: Array, bootstrap: Bootstrap, *, limit: float, ceiling: float) -> Verdict:
    """``curve`` (levels, draws, images) and ``null`` (draws or 1, images) by the measure that judges."""
    base, base_resampled = mean(null), bootstrap.means(null)
    levels = np.array([_retained(mean(level), base) for level in curve])
    resampled = np.stack([_retained(bootstrap.means(level), base_resampled) for level in curve])
    # A mean over the levels that are defined; a map of zeros has no similarity.
    known = np.isfinite(levels)
    share = Interval.of(
        float(levels[known].mean()) if known.any() else float("nan"),
        resampled[known].mean(axis=0) if known.any() else resampled[0],
    )
    half = next((k + 1 for k, left in enumerate(levels) if left <= 0.5), None)
    verdict, reason = _read(curve, share, Interval.of(base, base_resampled), null_name, limit, ceiling)
    return Verdict(verdict, share, null_name, base, reason, half)


def _retained(similarity: Array | float, null: Array | float) -> Array:
    room = 1.0 - np.asarray(null, np.float64)
    left: Array = np.divide(similarity - np.asarray(null), room, out=np.full(room.shape, np.nan), where=room > 1e-9)
    return left


def _read(curve: Array, share: Interval, base: Interval, null: str, limit: float, ceiling: float) -> tuple[str, str]:
    defined = float(np.isfinite(curve).mean())
    if defined < 0.5:
        return UNDECIDED, f"only {defined:.0%} of the similarities are defined: the other maps are constant"
    if not base.high < ceiling:
        return UNDECIDED, (
            f"maps that the model has no part in ({null}) are alike by {base.mean:.2f} already:"
            " this measure cannot tell for this method and these images"
        )
    if curve.shape[1] * curve.shape[2] < FEWEST:
        return UNDECIDED, (
            f"too few for an interval: draws {curve.shape[1]}, images {curve.shape[2]};"
            f" their product must be {FEWEST} at least"
        )
    said = f"keeps {percent(share.mean)} [{percent(share.low)}, {percent(share.high)}] of its similarity above the null"
    if share.high < limit:
        return SENSITIVE, f"{said}: all of the interval is below {limit:.0%}"
    if share.low > limit:
        return INSENSITIVE, f"{said}: all of the interval is above {limit:.0%}"
    return UNDECIDED, f"{said}: the interval holds {limit:.0%}"


def percent(share: float) -> str:
    """Without a sign on zero; an en dash for what is not defined."""
    return f"{round(100 * share)}%" if np.isfinite(share) else "–"
