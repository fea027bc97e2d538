"""Float64 kernels of operators with sliding windows, where onnx's reference implementation takes a loop in Python."""

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
