"""From a picture to a model's input, by the manifest's preprocessing or by a guess that is said aloud.

Nothing here draws: what is made of a map for the eye is in ``overlay``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxplain.artifact import Preprocessing, TensorSpec
from onnxplain.errors import BadRequest, LimitExceeded

MAX_PIXELS = 89_000_000
"""Larger pictures are refused from their header alone: a file of a few kB may unpack to gigabytes."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Seen:
    """A picture as a model sees it."""

    array: NDArray[np.generic]
    """(1, C, H, W) or (1, H, W, C) by ``layout``, of the input's dtype: the model's input."""
    region: Image.Image
    """The part of the picture that the model saw, RGB, at the picture's own resolution: overlays are drawn on it."""
    layout: str
    steps: tuple[str, ...]
    """What was done, in order, in words."""


def read(source: str | Path | bytes) -> Image.Image:
    """Decode a picture to RGB: rotated as its EXIF says, transparency on white, 16-bit grey scaled to 8.

    Raises BadRequest where it is missing or cannot be decoded, LimitExceeded beyond ``MAX_PIXELS``.
    """
    where = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise LimitExceeded(f"{where}: {image.width} x {image.height} pixels; {MAX_PIXELS:,} at most")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise BadRequest(f"{where}: no such file") from error
    except UnidentifiedImageError as error:
        raise BadRequest(f"{where}: not a picture that can be decoded, such as PNG, JPEG, WebP or TIFF") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitExceeded(f"{where}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files depends on the format
        raise BadRequest(f"{where}: the picture is damaged ({error})") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        wide = np.asarray(image, np.float32)
        span = 65535.0 if image.mode.startswith("I") else max(float(wide.max()), 1.0)
        image = Image.fromarray((np.clip(wide / span, 0, 1) * 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(ground, layer)
    return image.convert("RGB")


def picture_input(inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The input that takes a picture: the only one of rank 4. Raises BadRequest."""
    pictures = [spec for spec in inputs if len(spec.shape) == 4]
    if len(pictures) != 1:
        have = ", ".join(f"{x.name} {list(x.shape)}" for x in inputs)
        raise BadRequest(
            f"no single input takes a picture (inputs: {have}): give the model's input as .npy,"
            " or as .npz with one array per input"
        )
    return pictures[0]


def guess(spec: TensorSpec, layout: str | None = None) -> tuple[Preprocessing, str]:
    """Preprocessing from an input's shape and dtype alone, and the sentence that says what was assumed.

    The axis of 1 or 3 is the channels, floats are normalised as ImageNet models mostly are, and integers get the
    bytes. Raises BadRequest where neither axis 1 nor axis 3 can be the channels.
    """
    if layout is None:
        if spec.shape[1] in (1, 3):
            layout = "NCHW"
        elif spec.shape[3] in (1, 3):
            layout = "NHWC"
        else:
            raise BadRequest(
                f"input {spec.name} {list(spec.shape)}: neither axis 1 nor axis 3 has 1 or 3 channels, so how a picture"
                " goes in cannot be guessed: give --layout NCHW or NHWC, or the input itself as .npy"
            )
    at = 1 if layout == "NCHW" else 3
    channels = 1 if spec.shape[at] == 1 else 3
    height, width = spec.shape[2:] if layout == "NCHW" else spec.shape[1:3]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    color = "L" if channels == 1 else "RGB"
    if not spec.dtype.startswith("float"):
        zero, one = (0.0,) * channels, (1.0,) * channels
        made = Preprocessing(layout, color, size, zero, one, scale=1.0)
    elif channels == 3:
        made = Preprocessing(layout, color, size, IMAGENET_MEAN, IMAGENET_STD)
    else:
        made = Preprocessing(layout, color, size, (0.0,), (1.0,))
    return made, (
        f"the model does not say how a picture becomes its input {spec.name!r}; guessed from its shape:"
        f" {describe(made)}"
        " (other values: --layout, --color, --size, --mean, --std, --scale; `onnxplain convert` with the same flags"
        " keeps them in the file)"
    )


def describe(how: Preprocessing) -> str:
    """One line in words, for people and for the record."""
    if how.size is None:
        size = "own size"
    elif how.shorter is None:
        size = f"resized to {how.size[1]} x {how.size[0]}"
    else:
        size = f"shorter side to {how.shorter}, middle {how.size[1]} x {how.size[0]} cut out"
    scale = "values / 255" if abs(how.scale - 1 / 255) < 1e-9 else f"values * {how.scale:g}"
    mean = " ".join(f"{m:g}" for m in how.mean)
    std = " ".join(f"{s:g}" for s in how.std)
    return f"{how.color}, {how.layout}, {size}, {scale}, mean {mean}, std {std}"


def prepare(image: Image.Image, how: Preprocessing, dtype: str = "float32") -> Seen:
    """Turn an RGB picture into the model's input. ``dtype`` is the input's; integers are rounded and clipped."""
    region = image if how.shorter is None or how.size is None else image.crop(_middle(image, how.size, how.shorter))
    small = region if how.size is None else region.resize((how.size[1], how.size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(small.convert("L") if how.color == "L" else small, np.float64)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if how.color == "BGR":
        pixels = pixels[..., ::-1]
    values = (pixels * how.scale - np.asarray(how.mean)) / np.asarray(how.std)
    if not dtype.startswith("float"):
        bounds = np.iinfo(dtype)
        values = np.clip(np.rint(values), bounds.min, bounds.max)
    values = values.transpose(2, 0, 1) if how.layout == "NCHW" else values
    return Seen(np.ascontiguousarray(values[None], dtype), region, how.layout, (describe(how),))


def _middle(image: Image.Image, size: tuple[int, int], shorter: int) -> tuple[int, int, int, int]:
    """The box, in the picture's own pixels, that a resize of the shorter side and a cut from the middle would keep."""
    pixel = min(image.size) / shorter
    height, width = (min(size[0] * pixel, image.height), min(size[1] * pixel, image.width))
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return round(left), round(top), round(left + width), round(top + height)


def override(
    how: Preprocessing,
    *,
    layout: str | None = None,
    color: str | None = None,
    size: tuple[int, int] | None = None,
    shorter: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    scale: float | None = None,
) -> Preprocessing:
    """``how`` with what was given by hand in place of its own. Raises BadRequest on a wrong count or a std of zero."""
    color = color or how.color
    made = Preprocessing(
        layout=layout or how.layout,
        color=color,
        size=size or how.size,
        mean=_per_channel("mean", mean or how.mean, color),
        std=_per_channel("std", std or how.std, color),
        scale=how.scale if scale is None else scale,
        shorter=shorter or how.shorter,
    )
    if any(s == 0 for s in made.std):
        raise BadRequest(f"std {made.std}: none may be 0 (the input is divided by it)")
    return made


def _per_channel(name: str, values: tuple[float, ...], color: str) -> tuple[float, ...]:
    channels = 1 if color == "L" else 3
    if len(values) not in (1, channels):
        raise BadRequest(
            f"{name} has {len(values)} values; {color} pictures have {channels} channel{'s' * (channels > 1)}"
        )
    return values if len(values) == channels else values * channels
