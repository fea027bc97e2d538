"""What is made of a map for the eye: channels to one value, sign, percentile clip, colour, overlay.

Results stay raw: each step here works on a copy, is named in ``Drawn.steps`` and written into the picture's file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from onnxplain.errors import BadRequest, OnnxplainError

Array = NDArray[np.floating]

SIGNS = ("signed", "absolute", "positive")

SENSITIVITIES = frozenset(
    {"gradient", "smoothgrad", "guided_backprop", "deconvnet", "guided_grad_cam", "smoothgrad_squared", "vargrad"}
)
"""Methods whose sign says "brighter or darker", not "for or against": shown by absolute value unless told otherwise."""

LONGEST = 2048
"""Pixels of a drawing's longer side, at most: a photograph of 50 megapixels needs no overlay of that size."""

# Anchors at equal distances. Diverging: ColorBrewer RdBu, blue against the target and red for it. Sequential: YlOrRd
# from its middle up, which stays visible on white paper and on dark photographs.
RED_BLUE = ((5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (247, 247, 247),
            (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31))  # fmt: skip
HEAT = ((255, 255, 204), (254, 217, 118), (253, 141, 60), (240, 59, 32), (189, 0, 38), (128, 0, 38))


@dataclass(frozen=True)
class Look:
    """How a map is shown. ``sign`` None: absolute for the methods in ``SENSITIVITIES``, else signed."""

    sign: str | None = None
    percentile: float = 98.5
    """The magnitude at this percentile and all above it get the full colour."""
    opacity: float = 0.9
    """Of the strongest colour over the grey picture; 0 shows the picture, weak values are always more transparent."""
    side: int = 448
    """The drawing's shorter side in pixels is at least this, whatever the input's size."""

    def __post_init__(self) -> None:
        if self.sign is not None and self.sign not in SIGNS:
            raise BadRequest(f"sign {self.sign!r}: one of {', '.join(SIGNS)}")
        if not 0 < self.percentile <= 100:
            raise BadRequest(f"percentile {self.percentile:g}: above 0 and at most 100")
        if not 0 <= self.opacity <= 1:
            raise BadRequest(f"opacity {self.opacity:g}: between 0 and 1")


@dataclass(frozen=True)
class Drawn:
    """A picture for the eye and the steps that led from the raw map to it, in order."""

    image: Image.Image
    steps: tuple[str, ...]

    def save(self, path: str | Path, record: Mapping[str, object] | None = None) -> None:
        """Write it; a PNG carries the steps and ``record`` as JSON in its text chunk ``onnxplain``."""
        text = PngInfo()
        text.add_text("onnxplain", json.dumps({"shown": self.steps, **(record or {})}))
        where = Path(path)
        check_writable(where)
        try:
            if where.suffix.lower() == ".png":
                self.image.save(where, pnginfo=text)
            else:
                self.image.save(where)
        except OSError as error:
            raise OnnxplainError(f"{where}: the picture cannot be written ({error})") from error


def check_writable(path: Path) -> None:
    """Raises BadRequest where a picture cannot go to ``path``: before the work whose result it would hold."""
    Image.init()
    kinds = {suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.SAVE}
    if path.suffix.lower() not in kinds:
        raise BadRequest(f"{path}: no picture format is known by {path.suffix or 'no suffix'!r}: .png keeps the most")
    if not path.parent.is_dir():
        raise BadRequest(f"{path}: there is no folder {path.parent}")


def one_channel(values: Array, layout: str, sign: str) -> tuple[Array, str]:
    """A map of one row, (C, H, W), (H, W, C) or (H, W), as (H, W), and what was done to it in words.

    Signed maps sum over the channels; the absolute value is taken before the sum, or channels would cancel.
    Raises BadRequest for another rank.
    """
    if values.ndim not in (2, 3):
        raise BadRequest(f"a map of shape {list(values.shape)} is not a picture: keep the raw result instead (--save)")
    axis = None if values.ndim == 2 else (0 if layout == "NCHW" else 2)
    wide = values.astype(np.float64)
    many = axis is not None and values.shape[axis] > 1
    if sign == "absolute":
        wide, said = np.abs(wide), "absolute value" + (", summed over the channels" if many else "")
    else:
        said = "signed" + (", summed over the channels" if many else "")
    flat = wide if axis is None else wide.sum(axis=axis)
    if sign == "positive":
        return np.maximum(flat, 0.0), said + ", negative values set to 0"
    return flat, said


def draw(
    values: Array, region: Image.Image, *, layout: str = "NCHW", method: str = "", look: Look | None = None
) -> Drawn:
    """Lay one row's map over the part of the picture that the model saw.

    Signed maps get diverging colours about zero, maps without a negative value sequential ones. Raises BadRequest
    for a map that is not a picture's or has values that are not finite.
    """
    look = look or Look()
    if not np.isfinite(values).all():
        raise BadRequest(f"{np.count_nonzero(~np.isfinite(values))} values of the map are not finite: nothing to show")
    sign = look.sign or ("absolute" if method in SENSITIVITIES else "signed")
    flat, said = one_channel(np.asarray(values), layout, sign)
    top = float(np.percentile(np.abs(flat), look.percentile)) or float(np.abs(flat).max())
    unit = np.clip(flat / top, -1.0, 1.0) if top > 0 else flat
    grow = min(max(1.0, look.side / min(region.size)), LONGEST / max(region.size))
    size = (max(round(region.width * grow), 1), max(round(region.height * grow), 1))
    shown = np.asarray(Image.fromarray(unit.astype(np.float32)).resize(size, Image.Resampling.BILINEAR), np.float64)
    diverging = bool((unit < 0).any())
    table = RED_BLUE if diverging else HEAT
    colour = _colour((shown + 1) / 2 if diverging else shown, table)
    # Lightened grey under it: the picture stays readable and its own colours are not taken for the map's.
    grey = np.asarray(region.convert("L").resize(size, Image.Resampling.BICUBIC), np.float64)[..., None] * 0.6 + 102
    # The square root lifts single pixels of signed maps; over the wide areas of the others it would be a yellow fog.
    alpha = (look.opacity * (np.sqrt(np.abs(shown)) if diverging else np.abs(shown)))[..., None]
    mixed = grey * (1 - alpha) + colour * alpha
    steps = (
        said,
        f"clipped at the {look.percentile:g}th percentile of magnitude, {top:.4g}" if top > 0 else "the map is zero",
        f"colours {'red for, blue against' if diverging else 'yellow to dark red'}, full at {top:.4g}",
        f"enlarged from {flat.shape[1]} x {flat.shape[0]} to {size[0]} x {size[1]}, bilinear",
        f"over the lightened grey picture, opacity {look.opacity:g} * {'sqrt(value)' if diverging else 'value'}",
    )
    return Drawn(Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8)), steps)


def _colour(position: Array, table: tuple[tuple[int, int, int], ...]) -> Array:
    """Colours (H, W, 3) at positions in [0, 1], linear between a table's anchors."""
    anchors = np.asarray(table, np.float64)
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(position, at, anchors[:, k]) for k in range(3)], axis=-1)
