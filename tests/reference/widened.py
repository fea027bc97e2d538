"""Float64 kernels of operators that onnx's reference implementation computes in float32 whatever it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests.reference.windowed import tensor

Array = NDArray[Any]


class AffineGrid(OpRun):
    def _run(self, theta: Array, size: Array, align_corners: int | None = None) -> tuple[Array, ...]:
        grid = torch.nn.functional.affine_grid(tensor(theta), [int(n) for n in size], align_corners=bool(align_corners))
        return (grid.numpy(),)


class DynamicQuantizeLinear(OpRun):
    """The scale in float64; what is rounded to integers is divided in float32, as the operator's text has it."""

    def _run(self, x: Array) -> tuple[Array, ...]:
        top, bottom = max(x.max(), 0.0), min(x.min(), 0.0)
        scale = np.asarray((top - bottom if top != bottom else 1.0) / 255, x.dtype)
        single = np.float32(scale)
        zero = np.clip(np.rint(np.float32(-bottom) / single), 0, 255)
        y = np.clip(np.rint(x.astype(np.float32) / single) + zero, 0, 255)
        return y.astype(np.uint8), scale, np.asarray(zero, np.uint8)


class CausalConvWithState(OpRun):
    def _run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        past: Array | None = None,
        activation: str | None = None,
    ) -> tuple[Array, ...]:
        kept = weight.shape[2] - 1
        if past is None:
            past = np.zeros((*x.shape[:2], kept), x.dtype)
        long = np.concatenate([past, x], 2)
        offset = None if bias is None else tensor(bias)
        y = torch.nn.functional.conv1d(tensor(long), tensor(weight), offset, groups=x.shape[1])
        if activation in ("silu", "swish"):
            y = torch.nn.functional.silu(y)
        return y.numpy(), long[:, :, long.shape[2] - kept :]


class LinearAttention(OpRun):
    """A state S (keys x values) per head: S *= exp(decay); S += k (beta (v - S'k))'; y = scale q S."""

    def _run(
        self,
        query: Array,
        key: Array,
        value: Array,
        past: Array | None = None,
        decay: Array | None = None,
        beta: Array | None = None,
        **attributes: Any,
    ) -> tuple[Array, ...]:
        heads, shared = attributes["q_num_heads"], attributes["kv_num_heads"]
        q, k, v = (_per_head(x, n) for x, n in ((query, heads), (key, shared), (value, shared)))
        state = np.zeros((*k.shape[:2], k.shape[3], v.shape[3]), q.dtype) if past is None else past
        scale = attributes.get("scale") or k.shape[3] ** -0.5
        ys = []
        for t in range(q.shape[2]):
            if decay is not None:
                state = state * np.exp(_per_head(decay, shared)[:, :, t])[..., None]
            written = v[:, :, t]
            if beta is not None:
                known = np.einsum("bhkv,bhk->bhv", state, k[:, :, t])
                written = beta[:, t, :, None] * (written - known)
            state = state + k[:, :, t, :, None] * written[:, :, None, :]
            ys.append(scale * np.einsum("bhk,bhkv->bhv", q[:, :, t], np.repeat(state, heads // shared, 1)))
        return np.stack(ys, 1).reshape(*query.shape[:2], -1), state


def _per_head(x: Array, heads: int) -> Array:
    """(b, t, heads * d) as (b, heads, t, d)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)
