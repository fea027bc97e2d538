"""Where the channels and the places of a layer stand: feature maps, channels last, or a transformer's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxplain.rows import Floats

LAYOUTS = ("auto", "channels_first", "channels_last", "tokens")

PREFIXES = (0, 1, 2, 5)
"""Tokens before the grid's: none, a class token (ViT), two (DeiT distilled), one and four registers (DINOv2)."""

CHANNELS_FIRST = frozenset(
    [
        *("Conv", "ConvTranspose", "DeformConv", "BatchNormalization", "InstanceNormalization", "GroupNormalization"),
        *("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "DepthToSpace", "SpaceToDepth"),
    ]
)
"""Operators whose results are (n, channels, space...) by definition."""


@dataclass(frozen=True)
class Layout:
    """How one row of a layer becomes (channels, space...); ``prefix`` tokens are left out."""

    kind: str
    space: tuple[int, ...]
    prefix: int = 0

    def folded(self, row: Floats) -> Floats:
        """(channels, space...) in float64."""
        row = np.asarray(row, np.float64)
        if self.kind == "channels_first":
            return row
        return np.moveaxis(row[self.prefix :].reshape(*self.space, row.shape[-1]), -1, 0)


def layout(
    shape: tuple[int, ...], images: Iterable[tuple[int, ...]], kind: str = "auto", op: str = ""
) -> Layout | None:
    """Of a layer whose row has ``shape``, in a model whose inputs have the spatial sizes ``images``; None: none fits.

    With as many spatial axes as an input the channels are first, unless only the other reading keeps the picture's
    proportions and the operator leaves it open (Swin's (7, 7, 768) of a square picture; a language model's (tokens,
    features) of as many tokens). Two axes under a picture of
    two are tokens on a grid of its proportions, after none, one, two or five others.
    """
    for image in images:
        if len(shape) == len(image) + 1 and kind in ("auto", "channels_first", "channels_last"):
            first, last = shape[1:], shape[:-1]
            other = op not in CHANNELS_FIRST and (
                last == image != first
                if len(image) == 1
                else _stretch(last, image) < 1.05 and _stretch(first, image) > 1.1
            )
            if kind == "channels_last" or (kind == "auto" and other):
                return Layout("channels_last", last)
            return Layout("channels_first", first)
        if len(shape) == 2 and len(image) == 2 and kind in ("auto", "tokens"):
            for prefix in PREFIXES:
                grid = _grid(shape[0] - prefix, image)
                if grid is not None:
                    return Layout("tokens", grid, prefix)
    return None


def _stretch(space: tuple[int, ...], image: tuple[int, ...]) -> float:
    """How far a map's proportions are from the picture's; 1 is not at all."""
    ratios = [whole / size for whole, size in zip(image, space, strict=True)]
    return max(ratios) / min(ratios)


def _grid(n: int, image: tuple[int, ...]) -> tuple[int, ...] | None:
    """Rows and columns of ``n`` square patches over a picture, what is left at its edges dropped or filled up."""
    if n < 2:
        return None
    near = math.sqrt(math.prod(image) / n)
    for patch in sorted(range(1, min(image) + 1), key=lambda size: abs(size - near))[:8]:
        for grid in (tuple(size // patch for size in image), tuple(-(-size // patch) for size in image)):
            if math.prod(grid) == n:
                return grid
    return None
