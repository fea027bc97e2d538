"""The paper's figure: methods down, levels across, every map a small picture inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from onnxplain.overlay import HEAT, RED_BLUE
from onnxplain.sanity.audit import Audit
from onnxplain.sanity.bootstrap import Array
from onnxplain.sanity.maps import pixels

SIDE = 72
COLUMNS = 17
"""As many as the paper's figure has; of more levels some are left out, evenly."""
PERCENTILE = 99.0
"""Magnitudes from here up get the full colour."""


@dataclass(frozen=True)
class Sheet:
    """One image: its picture, the levels' names, and per method a picture for each."""

    name: str
    picture: str
    sign: str
    """"absolute" or "diverging"."""
    levels: tuple[str, ...]
    methods: tuple[tuple[str, tuple[str, ...]], ...]


def sheets(audit: Audit) -> list[Sheet]:
    """Of the images whose maps were kept, first in absolute, then in diverging colours; none where inputs are no
    pictures."""
    found = []
    places = sorted(set(np.linspace(0, len(audit.levels) - 1, min(COLUMNS, len(audit.levels))).round().astype(int)))
    for image in range(len(audit.findings[0].shown)):
        specimen = audit.specimens[image]
        seen = pixels(specimen)
        if seen is None or any(each.shown[image][0].ndim != 2 for each in audit.findings):
            continue
        for sign in ("absolute", "diverging"):
            methods = tuple(
                (
                    each.method,
                    tuple(_picture(each.shown[image][k], sign) for k in (0, *(place + 1 for place in places))),
                )
                for each in audit.findings
            )
            names = ("trained", *(audit.levels[place].name for place in places))
            found.append(Sheet(specimen.name, _address(Image.fromarray(seen)), sign, names, methods))
    return found


def _picture(map_: Array, sign: str) -> str:
    values = np.abs(map_) if sign == "absolute" else map_
    top = float(np.percentile(np.abs(values), PERCENTILE)) or float(np.abs(values).max()) or 1.0
    unit = np.clip(values / top, -1.0, 1.0)
    position = unit if sign == "absolute" else (unit + 1) / 2
    image = Image.fromarray(np.rint(np.nan_to_num(position) * 255).astype(np.uint8), "P")
    table = ((255, 255, 255), *HEAT) if sign == "absolute" else RED_BLUE
    anchors = np.asarray(table, np.float64)
    ramp = [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(anchors)), anchors[:, k]) for k in range(3)]
    image.putpalette(np.rint(np.stack(ramp, axis=1)).astype(np.uint8).tobytes())
    return _address(image)


def _address(image: Image.Image) -> str:
    """A data: address; small maps stay as they are, the page enlarges them."""
    if max(image.size) > 2 * SIDE:
        factor = 2 * SIDE / max(image.size)
        how = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BILINEAR
        image = image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)), how)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
