"""Baselines: where the path of integrated gradients begins, in the space of the tensor that is differentiated."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.methods.upsampling import channels_last

Array = NDArray[Any]
Floats = NDArray[np.float64]

BLUR = 0.1
"""Standard deviation of the blur, as a fraction of the longer side: nothing but the colours' places is left."""


def of_input(baseline: Any, name: str) -> Any:
    """The baseline of one input: its own where a dict was given, zero where the dict does not name it."""
    return baseline.get(name, "zero") if isinstance(baseline, Mapping) else baseline


def check_names(baseline: Any, names: list[str]) -> None:
    """Raises BadRequest for a dict that names an input that gets no map."""
    unknown = [str(name) for name in baseline if name not in names] if isinstance(baseline, Mapping) else []
    if unknown:
        raise BadRequest(f"baseline: {', '.join(unknown)} is none of the inputs that are explained: {', '.join(names)}")


def is_array(baseline: Any) -> bool:
    """An array in the model's input space, rather than a name or a number for all of it."""
    return not isinstance(baseline, (str, numbers.Real, np.generic))


def row_of(baseline: Any, name: str, shape: tuple[int, ...], row: int, n: int) -> Array:
    """The row's own part of a baseline array of shape ``shape``, (1, *shape) or (n, *shape). Raises BadRequest."""
    try:
        array = np.asarray(baseline)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"baseline of {name!r}: not an array ({error})") from error
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and not np.all(np.isfinite(array))):
        raise BadRequest(f"baseline of {name!r}: give finite numbers, got {array.dtype}")
    if array.shape == shape:
        return array
    if array.shape[1:] == shape and len(array) in (1, n):
        return np.asarray(array[row if len(array) == n else 0])
    raise BadRequest(
        f"baseline of {name!r} has shape {list(array.shape)}: give one row {list(shape)}, or one per row {[n, *shape]}"
    )


def filled(baseline: Any, manifest: Manifest, spec: TensorSpec, x: Array) -> Array:
    """A named baseline or a number, for the tensor ``spec`` (shape of one row) with the value ``x``.

    Raises BadRequest where it is a colour and the model says nothing of its preprocessing, or ``x`` is no picture.
    """
    if isinstance(baseline, (numbers.Real, np.generic)):
        value = float(baseline)
        if not math.isfinite(value):
            raise BadRequest(f"baseline={value}: give a finite number")
        return np.full_like(x, value)
    if baseline == "zero":
        return np.zeros_like(x)
    if x.ndim != 3 or manifest.stands_for.get(spec.name, spec.name) != spec.name:
        raise BadRequest(
            f"baseline {baseline!r} is a picture, a row of input {spec.name!r} has shape {list(x.shape)}:"
            " give an array or 'zero'"
        )
    last = channels_last(manifest, spec)
    picture = np.moveaxis(x.astype(np.float64), -1 if last else 0, 0)
    made = np.moveaxis(_picture(baseline, manifest, picture), 0, -1 if last else 0)
    return made.astype(x.dtype)


def _picture(name: str, manifest: Manifest, x: Floats) -> Floats:
    """``x`` and the result are (channels, height, width) as the model sees them.

    Preprocessing is affine per channel, so that the mean and blur of pixels are the mean and blur of these.
    """
    if name == "mean":
        return np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    if name == "blur":
        return _blurred(x)
    how = manifest.preprocessing
    if how is None:
        raise BadRequest(
            f"baseline {name!r} is a colour, and the model does not say how pixels become its input: convert it with"
            " preprocessing=, or give the colour as the model sees it, as a number or an array"
        )
    pixel = {"black": 0.0, "white": 255.0}[name] * how.scale
    colour = (pixel - np.asarray(how.mean)) / np.asarray(how.std)
    return np.broadcast_to(colour.reshape(-1, 1, 1), x.shape)


def _blurred(x: Floats) -> Floats:
    sigma = BLUR * max(x.shape[1:])
    for axis in (1, 2):
        n = x.shape[axis]
        kernel = np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)[None]) / sigma) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)  # near an edge the weights inside it count for more
        x = np.moveaxis(np.tensordot(kernel, x, (1, axis)), 0, axis)
    return x
