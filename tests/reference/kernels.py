"""Float64 kernels for operators where onnx's reference implementation is slow, wrong, or computes in float32 (Erf)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests.reference.windows import Windows

Array = NDArray[Any]
Ints = list[int] | None


def tensor(x: Array) -> torch.Tensor:
    """``x`` as a torch tensor, copied only where torch cannot share it."""
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


class Conv(OpRun):
    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        auto_pad: str | None = None,
        dilations: Ints = None,
        group: int | None = None,
        kernel_shape: Ints = None,
        pads: Ints = None,
        strides: Ints = None,
    ) -> tuple[Array, ...]:
        windows = Windows.of(
            x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
        )
        zeros = [0] * (x.ndim - 2)
        y = torch.convolution(
            windows.pad(tensor(x), 0.0, 0.0),
            tensor(w),
            None if b is None else tensor(b),
            list(windows.strides),
            zeros,
            list(windows.dilations),
            False,
            zeros,
            group or 1,
        )
        return (y.numpy(),)


class ConvTranspose(OpRun):
    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        auto_pad: str | None = None,
        dilations: Ints = None,
        group: int | None = None,
        kernel_shape: Ints = None,
        output_padding: Ints = None,
        output_shape: Ints = None,
        pads: Ints = None,
        strides: Ints = None,
    ) -> tuple[Array, ...]:
        n = x.ndim - 2
        strides, dilations = strides or [1] * n, dilations or [1] * n
        extra = output_padding or [0] * n
        full = [(x.shape[i + 2] - 1) * strides[i] + (w.shape[i + 2] - 1) * dilations[i] + 1 for i in range(n)]
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = output_shape[-n:] if output_shape else [x.shape[i + 2] * strides[i] for i in range(n)]
            total = [full[i] + extra[i] - wanted[i] for i in range(n)]
            begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
            end = [total[i] - begin[i] for i in range(n)]
        else:
            given = pads or [0] * (2 * n)
            begin, end = given[:n], given[n:]
        zeros = [0] * n
        y = torch.convolution(tensor(x), tensor(w), None, strides, zeros, dilations, True, zeros, group or 1)
        crop = [side for i in reversed(range(n)) for side in (-begin[i], extra[i] - end[i])]
        y = torch.nn.functional.pad(y, crop)
        return ((y if b is None else y + tensor(b).reshape(-1, *[1] * n)).numpy(),)


class _Pool(OpRun):
    def windows(self, x: Array, attributes: dict[str, Any]) -> Windows:
        return Windows.of(
            x.shape[2:],
            attributes["kernel_shape"],
            strides=attributes.get("strides"),
            dilations=attributes.get("dilations"),
            pads=attributes.get("pads"),
            auto_pad=attributes.get("auto_pad"),
            ceil=bool(attributes.get("ceil_mode")),
        )


class MaxPool(_Pool):
    def _run(self, x: Array, **attributes: Any) -> tuple[Array, ...]:
        windows = self.windows(x, attributes)
        if x.dtype.kind != "f":  # the least value stands for what is outside
            values = windows.view(windows.pad(tensor(x).to(torch.int64), -(2**62), -(2**62)))
        else:
            values = windows.view(windows.pad(tensor(x), -np.inf, -np.inf))
        best = values.max(-1)
        y = best.values.numpy().astype(x.dtype)
        if len(self.onnx_node.output) == 1:
            return (y,)
        spatial = x.shape[2:]
        flat = np.arange(np.prod(spatial, dtype=np.int64)).reshape(spatial)
        if attributes.get("storage_order"):
            flat = np.arange(flat.size).reshape(spatial[::-1]).transpose()
        places = windows.view(windows.pad(tensor(flat)[None, None], -1, -1)).expand_as(values)
        within = places.gather(-1, best.indices[..., None])[..., 0].numpy()
        first = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2] + (1,) * len(spatial)) * flat.size
        return y, within + first


class AveragePool(_Pool):
    def _run(self, x: Array, count_include_pad: int = 0, **attributes: Any) -> tuple[Array, ...]:
        windows = self.windows(x, attributes)
        total = windows.view(windows.pad(tensor(x), 0.0, 0.0)).sum(-1)
        inside = torch.ones((1, 1, *x.shape[2:]), dtype=total.dtype)
        counted = windows.view(windows.pad(inside, float(count_include_pad), 0.0)).sum(-1)
        return ((total / counted).numpy(),)


class LpPool(_Pool):
    def _run(self, x: Array, p: int = 2, **attributes: Any) -> tuple[Array, ...]:
        windows = self.windows(x, attributes)
        values = windows.view(windows.pad(tensor(x), 0.0, 0.0)).abs()
        return ((values**p).sum(-1).pow(1.0 / p).numpy(),)


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
    BatchNormalization,
    LRN,
    Softmax,
    LogSoftmax,
    Pad,
    GatherElements,
    Scatter,
    ScatterElements,
    ScatterND,
)
