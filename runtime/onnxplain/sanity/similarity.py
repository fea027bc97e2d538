"""How alike two maps are: the measures of Adebayo et al. 2018 (arXiv:1810.03292, section 2.2) and cosine, top-k.

scipy and scikit-image do the arithmetic. What a number means is said by its null (``nulls``), never by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from skimage.feature import hog
from skimage.metrics import structural_similarity

from onnxplain.errors import BadRequest, NotFound, nearest

Array = NDArray[Any]
SCALINGS = ("max_abs", "min_max", "second_moment")


@dataclass(frozen=True)
class Settings:
    """Of the measures: what the paper leaves open or its code does differently is a number here."""

    ssim_window: int = 5
    """Side of the uniform window in pixels; without meaning where ``ssim_sigma`` is given."""
    ssim_sigma: float | None = None
    """Of a Gaussian window (cut off at 3.5 sigma) in place of the uniform one."""
    ssim_range: float = 2.0
    """``data_range``: what the stabilising constants are relative to."""
    scaling: str = "max_abs"
    """Before SSIM and HOG: divided by the largest magnitude, brought to [0, 1] by minimum and maximum, or divided by
    the root mean square (Binder et al. 2023)."""
    hog_cell: int = 16
    """Pixels per side of a cell; blocks are 3 x 3 cells, 9 orientations, L2-Hys."""
    top_fraction: float = 0.1
    """Share of places, largest magnitudes first, whose overlap is counted."""
    clip: float | None = None
    """Percentile at which maps of several channels are cut off after the sum over them; ties come of it."""

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise BadRequest(f"scaling={self.scaling!r}: one of {', '.join(SCALINGS)}")
        if self.ssim_window < 3 or self.ssim_window % 2 == 0:
            raise BadRequest(f"ssim_window={self.ssim_window}: an odd number of pixels, 3 or more")
        for name in ("ssim_sigma", "ssim_range", "hog_cell"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadRequest(f"{name}={value:g}: a positive number")
        if not 0 < self.top_fraction < 1:
            raise BadRequest(f"top_fraction={self.top_fraction:g}: between 0 and 1")
        if self.clip is not None and not 0 < self.clip <= 100:
            raise BadRequest(f"clip={self.clip:g}: a percentile, above 0 and at most 100")


PAPER = Settings()
"""Appendix B: window 5, maps in [-1, 1], 16 x 16 pixels per cell."""
CODE = Settings(ssim_sigma=1.5, scaling="min_max", clip=99.0)
"""The released notebooks; the data range of 2 is what scikit-image takes for floats where none is given."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A map of one input row as it is compared: without channels, signed and by magnitude, of one shape."""

    signed: Array
    absolute: Array
    kept: Array
    """Where the input differs from the baseline: elsewhere a map times the input is zero whatever the model."""


def seen(values: Array, channel_axis: int | None, kept: Array | None, settings: Settings) -> Seen:
    """Sum over the channels; magnitudes are taken before the sum, or channels would cancel. Float64."""
    wide = np.asarray(values, np.float64)
    signed, absolute = wide, np.abs(wide)
    if channel_axis is not None:
        signed, absolute = signed.sum(axis=channel_axis), absolute.sum(axis=channel_axis)
        if settings.clip is not None and wide.shape[channel_axis] > 1:
            signed = np.clip(signed, -(top := np.percentile(np.abs(signed), settings.clip)), top)
            absolute = np.minimum(absolute, np.percentile(absolute, settings.clip))
    return Seen(signed, absolute, np.ones(signed.shape, bool) if kept is None else kept)


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of the flattened maps."""
    found: Any = stats.spearmanr(a.ravel(), b.ravel())
    return float(found.statistic)


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two maps as vectors."""
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def top_k(a: Array, b: Array, fraction: float) -> float:
    """Share of the places with the largest values that two maps have in common; of ties the first ones count."""
    k = max(1, round(fraction * a.size))
    first, second = (set(np.argsort(-x.ravel(), kind="stable")[:k].tolist()) for x in (a, b))
    return len(first & second) / k


def ssim(a: Array, b: Array, settings: Settings) -> float:
    """Structural similarity (Wang et al. 2004) of two pictures, each scaled by itself."""
    how: dict[str, Any] = {"win_size": settings.ssim_window}
    if settings.ssim_sigma is not None:
        how = {"gaussian_weights": True, "sigma": settings.ssim_sigma}
    pictures = (scaled(x, settings.scaling) for x in (a, b))
    found: Any = structural_similarity(*pictures, data_range=settings.ssim_range, **how)
    return float(found)


def hog_features(a: Array, settings: Settings) -> Array:
    """Histogram of oriented gradients of a picture, scaled by itself."""
    cell = (settings.hog_cell, settings.hog_cell)
    features: Array = hog(scaled(a, settings.scaling), pixels_per_cell=cell)
    return features


def scaled(a: Array, how: str) -> Array:
    """Raises no error for a map that is constant: what comes out is constant too."""
    low, high = float(a.min()), float(a.max())
    size = {"max_abs": max(-low, high), "min_max": high - low, "second_moment": float(np.sqrt(np.mean(a**2)))}[how]
    return (a - low if how == "min_max" else a) / (size or 1.0)


Measured = Callable[[Seen, Seen, Settings], float]


def _off_baseline(pick: Callable[[Seen], Array]) -> Measured:
    def measured(a: Seen, b: Seen, _: Settings) -> float:
        kept = a.kept
        x, y = pick(a)[kept], pick(b)[kept]
        return _defined(x, y, spearman)

    return measured


def _defined(x: Array, y: Array, of: Callable[[Array, Array], float]) -> float:
    """nan where a map has no order: it is constant, or not finite. Equal maps are alike without rounding."""
    if x.size < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return 1.0 if np.array_equal(x, y) else of(x, y)


def _hog(of: Callable[[Array, Array], float]) -> Measured:
    return lambda a, b, how: _defined(hog_features(a.signed, how), hog_features(b.signed, how), of)


def _pearson(a: Array, b: Array) -> float:
    found: Any = stats.pearsonr(a, b)
    return float(found.statistic)


MEASURES: Mapping[str, Measured] = {
    "spearman": lambda a, b, _: _defined(a.signed, b.signed, spearman),
    "spearman_abs": lambda a, b, _: _defined(a.absolute, b.absolute, spearman),
    "spearman_off_baseline": _off_baseline(lambda each: each.signed),
    "spearman_abs_off_baseline": _off_baseline(lambda each: each.absolute),
    "ssim": lambda a, b, how: _defined(a.signed, b.signed, lambda x, y: ssim(x, y, how)),
    "hog_pearson": _hog(_pearson),
    "hog_spearman": _hog(spearman),
    "top_k": lambda a, b, how: _defined(a.absolute, b.absolute, lambda x, y: top_k(x, y, how.top_fraction)),
    "cosine": lambda a, b, _: _defined(a.signed, b.signed, cosine),
}
"""Name -> measure of two maps: 1 where they are equal, nan where it is not defined. SSIM and HOG compare signed maps,
as the paper does."""


def compare(name: str, a: Seen, b: Seen, settings: Settings) -> float:
    """Raises NotFound for an unknown measure, BadRequest where maps of this shape do not have it."""
    if name not in MEASURES:
        raise NotFound(f"no measure {name!r}; {nearest(name, MEASURES)}")
    reason = unfit(name, a.signed.shape, settings)
    if reason is not None:
        raise BadRequest(f"measure {name!r}: {reason}")
    if a.signed.shape != b.signed.shape:
        raise BadRequest(f"maps of shapes {list(a.signed.shape)} and {list(b.signed.shape)} cannot be compared")
    return MEASURES[name](a, b, settings)


def unfit(name: str, shape: tuple[int, ...], settings: Settings) -> str | None:
    """Why maps of ``shape`` (without channels) do not have a measure; None where they do."""
    if name != "ssim" and not name.startswith("hog"):
        return None
    if len(shape) != 2:
        return f"maps of shape {list(shape)} are no pictures"
    if name == "ssim":
        sigma = settings.ssim_sigma
        need = settings.ssim_window if sigma is None else 2 * int(3.5 * sigma + 0.5) + 1
    else:
        need = 3 * settings.hog_cell
    return f"maps of {shape[0]} x {shape[1]} are smaller than {need} x {need}" if min(shape) < need else None
