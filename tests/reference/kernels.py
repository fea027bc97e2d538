"""Float64 kernels where onnx's reference implementation is slow, wrong, or computes in float32 (Erf)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as OnnxResize

from tests.reference.loops import Loop
from tests.reference.widened import AffineGrid, CausalConvWithState, DynamicQuantizeLinear, LinearAttention
from tests.reference.windowed import AveragePool, Conv, ConvTranspose, LpPool, MaxPool, tensor

Array = NDArray[Any]


class Erf(OpRun):
    def _run(self, x: Array) -> tuple[Array, ...]:
        return (torch.erf(tensor(x)).numpy(),)


class Gelu(OpRun):
    def _run(self, x: Array, approximate: str = "none") -> tuple[Array, ...]:
        return (torch.nn.functional.gelu(tensor(x), approximate=approximate).numpy(),)


class Softmax(OpRun):
    """onnx's own takes every opset for 13, before which all axes from ``axis`` on were one."""

    def _run(self, x: Array, axis: int | None = None) -> tuple[Array, ...]:
        if self.run_params["opsets"][""] >= 13:
            return (self.along(tensor(x), -1 if axis is None else axis).numpy(),)
        given = {attribute.name for attribute in self.onnx_node.attribute}
        first = axis % x.ndim if axis is not None and "axis" in given else 1
        rows = x.reshape(int(np.prod(x.shape[:first])), -1)
        return (self.along(tensor(rows), 1).numpy().reshape(x.shape),)

    def along(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.softmax(x, axis)


class LogSoftmax(Softmax):
    def along(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.log_softmax(x, axis)


class BatchNormalization(OpRun):
    """onnx's own takes opset 9 to be training unless told otherwise."""

    def _run(
        self,
        x: Array,
        scale: Array,
        bias: Array,
        mean: Array,
        var: Array,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        training_mode: int = 0,
    ) -> tuple[Array, ...]:
        running: tuple[Array, ...] = ()
        if training_mode:
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            now = x.mean(axes), x.var(axes)
            running = tuple(momentum * old + (1 - momentum) * new for old, new in zip((mean, var), now, strict=True))
            mean, var = now
        scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
        return (scale * (x - mean) / np.sqrt(var + epsilon) + bias, *running)


class LRN(OpRun):
    """onnx's own goes over the rows where it means the channels."""

    def _run(
        self, x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
    ) -> tuple[Array, ...]:
        sides = [(0, 0), ((size - 1) // 2, size // 2)] + [(0, 0)] * (x.ndim - 2)
        squares = np.lib.stride_tricks.sliding_window_view(np.pad(x * x, sides), size, axis=1).sum(-1)
        return (x / (bias + alpha / size * squares) ** beta,)


class GlobalMaxPool(OpRun):
    """onnx's own knows two spatial axes."""

    def _run(self, x: Array) -> tuple[Array, ...]:
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class Resize(OnnxResize):
    """Repetition at once (the gradient of an average pool is one), all else as onnx does it, element by element."""

    def _run(self, x: Array, *inputs: Any, **attributes: Any) -> tuple[Array, ...]:  # type: ignore[override]
        repeats = self.repeats(x, inputs[1] if len(inputs) > 1 else None, attributes)
        if repeats is None:
            result: tuple[Array, ...] = super()._run(x, *inputs, **attributes)
            return result
        for axis, times in enumerate(repeats):
            x = np.repeat(x, times, axis)
        return (x,)

    def repeats(self, x: Array, scales: Array | None, attributes: dict[str, Any]) -> list[int] | None:
        """How often every element is repeated along each axis, None where it is no plain repetition."""
        spelled = [attributes.get(name) for name in ("mode", "coordinate_transformation_mode", "nearest_mode", "axes")]
        if scales is None or scales.shape != (x.ndim,) or spelled != ["nearest", "asymmetric", "floor", None]:
            return None
        whole = np.rint(scales)
        return whole.astype(np.int64).tolist() if np.array_equal(whole, scales) and np.all(whole >= 1) else None


class Pad(OpRun):
    """onnx's own cannot crop, which negative pads mean."""

    def _run(
        self,
        x: Array,
        pads: Array,
        value: Array | None = None,
        axes: Array | None = None,
        mode: str = "constant",
    ) -> tuple[Array, ...]:
        chosen = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
        sides = np.zeros((x.ndim, 2), np.int64)
        for axis, begin, end in zip(chosen, *pads.reshape(2, -1), strict=True):
            sides[axis] = begin, end
        crop = tuple(slice(max(-b, 0), size - max(-e, 0)) for (b, e), size in zip(sides.tolist(), x.shape, strict=True))
        grow, cropped = np.maximum(sides, 0), x[crop]
        if mode == "constant":
            fill = x.dtype.type(0) if value is None else value.reshape(())
            return (np.pad(cropped, grow, constant_values=fill),)
        return (np.pad(cropped, grow, mode=mode),)  # type: ignore[call-overload]


class LpNormalization(OpRun):
    """onnx's own leaves out the absolute value, which p = 1 needs."""

    def _run(self, x: Array, axis: int = -1, p: int = 2) -> tuple[Array, ...]:
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return (np.where(norm == 0, 0, x / norm),)


class Squeeze(OpRun):
    """onnx's own cannot take scalar axes, which its own definition of AffineGrid has."""

    def _run(self, x: Array, axes: Array | None = None) -> tuple[Array, ...]:
        given = getattr(self, "axes", None) if axes is None else axes  # an attribute before opset 13
        return (np.squeeze(x, None if given is None else tuple(int(a) for a in np.atleast_1d(given))),)


class GatherElements(OpRun):
    def _run(self, x: Array, indices: Array, axis: int = 0) -> tuple[Array, ...]:
        return (np.ascontiguousarray(x[_along(x, indices, axis)]),)


class ScatterElements(OpRun):
    def _run(
        self, x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str = "none"
    ) -> tuple[Array, ...]:
        return (_scatter(x, _along(x, indices, axis), updates, reduction),)


class Scatter(ScatterElements):
    """Of opset 9 and 10, which became ScatterElements."""


class ScatterND(OpRun):
    def _run(self, x: Array, indices: Array, updates: Array, reduction: str = "none") -> tuple[Array, ...]:
        return (_scatter(x, tuple(np.moveaxis(indices, -1, 0)), updates, reduction),)


def _along(x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """Full indices into ``x`` for every element of ``indices``, which index it along ``axis``."""
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
    return tuple(places)


def _scatter(x: Array, where: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    y = x.copy()
    if reduction in (None, "none"):
        y[where] = updates
        return y
    ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
    ufunc.at(y, where, updates)
    return y


KERNELS: tuple[type[OpRun], ...] = (
    Conv,
    ConvTranspose,
    MaxPool,
    AveragePool,
    LpPool,
    Erf,
    Gelu,
    AffineGrid,
    CausalConvWithState,
    DynamicQuantizeLinear,
    LinearAttention,
    BatchNormalization,
    LRN,
    LpNormalization,
    GlobalMaxPool,
    Resize,
    Softmax,
    LogSoftmax,
    Squeeze,
    Pad,
    GatherElements,
    Scatter,
    ScatterElements,
    ScatterND,
    Loop,
)
