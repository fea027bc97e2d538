"""How a layer's map comes to the size of the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.rows import Floats


def channels_last(manifest: Manifest, spec: TensorSpec) -> bool:
    """Whether an image input is (height, width, channels): from the preprocessing, else where its few channels are.

    Embedded tokens are (tokens, features).
    """
    if len(spec.shape) == 2:
        return manifest.stands_for.get(spec.name, spec.name) != spec.name
    if manifest.preprocessing is not None:
        return manifest.preprocessing.layout == "NHWC"
    shape = spec.shape
    return len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)


def spaces(manifest: Manifest, specs: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
    """Per input that has channels and spatial axes the sizes of the latter (``specs``: of one row, concrete)."""
    found = {}
    for spec in specs:
        shape = tuple(int(size) for size in spec.shape if isinstance(size, int))
        if len(shape) > 1:
            found[spec.name] = shape[:-1] if channels_last(manifest, spec) else shape[1:]
    return found


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
