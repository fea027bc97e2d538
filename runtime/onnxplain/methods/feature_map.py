"""Feature maps: which layer a CAM looks at unless told, and how its map comes to the input's size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxplain.artifact import Layer, Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.rows import Floats

MOVES = frozenset(
    [
        *("AveragePool", "MaxPool", "LpPool", "Resize"),
        *("Dropout", "Identity", "Cast", "Reshape", "Transpose", "Slice", "Pad"),
    ]
)
"""Operators that only pool, move or resize: the feature map is the one before them (VGG's relu5_3, not pool5)."""


def default_layer(manifest: Manifest, output: str, rules: str = "gradient") -> Layer:
    """The last feature map on the path to the output.

    That is the last layer with a gradient whose tensor has a channel axis and spatial axes of more than one place, and
    whose operator computes something (``MOVES`` do not). BadRequest where there is none (a transformer): name one then.
    """
    on_path = manifest.gradients.get(rules, {})
    for layer in reversed(manifest.layers):
        if layer.tensor in on_path and layer.tensor != output and layer.op not in MOVES and _is_map(layer.shape):
            return layer
    raise BadRequest(
        "this model has no feature map with spatial axes on the path from its inputs to"
        f" {output!r}: name one with layer= (`onnxplain inspect` lists them), or take another method"
    )


def _is_map(shape: tuple[int | str | None, ...] | None) -> bool:
    """(n, channels, space...) with more than one place; an unknown size counts as more."""
    return shape is not None and len(shape) >= 4 and any(not isinstance(size, int) or size > 1 for size in shape[2:])


def channels_last(manifest: Manifest, spec: TensorSpec) -> bool:
    """Whether an image input is (height, width, channels): from the preprocessing, else where its few channels are."""
    if manifest.preprocessing is not None:
        return manifest.preprocessing.layout == "NHWC"
    shape = spec.shape
    return len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)


def at_inputs(map_: Floats, manifest: Manifest, specs: Sequence[TensorSpec], interpolation: str) -> dict[str, Floats]:
    """A map (space...) at the spatial size of every input that has as many spatial axes (``specs``: of one row).

    Raises BadRequest where there is none.
    """
    maps = {}
    for spec in specs:
        shape = tuple(int(size) for size in spec.shape if isinstance(size, int))
        if len(shape) == map_.ndim + 1:
            maps[spec.name] = upsampled(map_, shape, channels_last(manifest, spec), interpolation)
    if not maps:
        rows = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
        raise BadRequest(
            f"the layer's map has {map_.ndim} spatial axes, no input row has them and channels: {rows};"
            " take another layer"
        )
    return maps


def upsampled(map_: Floats, shape: tuple[int, ...], last: bool, interpolation: str) -> Floats:
    """A map (space...) at the spatial size of a row of ``shape``, with an axis of one in place of the channels."""
    space = shape[:-1] if last else shape[1:]
    for axis, size in enumerate(space):
        weights = _weights(map_.shape[axis], size, interpolation)
        map_ = np.moveaxis(np.tensordot(weights, map_, (1, axis)), 0, axis)
    return map_[..., None] if last else map_[None]


def _weights(n: int, size: int, interpolation: str) -> Floats:
    """(size, n) matrix that resizes one axis: linear between pixel centres (align_corners false), or nearest."""
    if interpolation == "nearest":
        return np.eye(n)[[math.floor(k * n / size) for k in range(size)]]
    at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    return np.maximum(1.0 - np.abs(at[:, None] - np.arange(n)[None]), 0.0)
