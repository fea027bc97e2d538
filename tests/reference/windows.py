"""Pads, output sizes and sliding windows of convolution and pooling, from their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Windows:
    """Where the windows lie, per spatial axis; ``overhang`` is what ceil_mode adds behind the end padding."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    overhang: tuple[int, ...]
    out: tuple[int, ...]

    @classmethod
    def of(
        cls,
        size: Sequence[int],
        kernel: Sequence[int],
        *,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        pads: Sequence[int] | None,
        auto_pad: str | None,
        ceil: bool = False,
    ) -> Windows:
        """Follows the operator text of Conv and MaxPool; a window that would start in the end padding is left out."""
        n = len(size)
        strides = tuple(strides or [1] * n)
        dilations = tuple(dilations or [1] * n)
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = [-(-i // s) for i, s in zip(size, strides, strict=True)]
            total = [max(0, (o - 1) * s + e - i) for o, s, e, i in zip(out, strides, extent, size, strict=True)]
            begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
            end = [t - b for t, b in zip(total, begin, strict=True)]
        else:
            given = [0] * (2 * n) if auto_pad == "VALID" or not pads else list(pads)
            begin, end = given[:n], given[n:]
            room = [i + b + e - x for i, b, e, x in zip(size, begin, end, extent, strict=True)]
            out = [(-(-r // s) if ceil else r // s) + 1 for r, s in zip(room, strides, strict=True)]
            if ceil:
                starts_inside = zip(out, strides, size, begin, strict=True)
                out = [o - 1 if (o - 1) * s >= i + b else o for o, s, i, b in starts_inside]
        needed = [(o - 1) * s + e for o, s, e in zip(out, strides, extent, strict=True)]
        overhang = [max(0, n - i - b - e) for n, i, b, e in zip(needed, size, begin, end, strict=True)]
        return cls(tuple(kernel), strides, dilations, tuple(begin), tuple(end), tuple(overhang), tuple(out))

    def pad(self, x: torch.Tensor, padding: float, overhang: float) -> torch.Tensor:
        """``x`` (..., *size) with the padding and the overhang filled with two values."""
        padded = torch.nn.functional.pad(x, _both_sides(self.begin, self.end), value=padding)
        return torch.nn.functional.pad(padded, _both_sides([0] * len(self.overhang), self.overhang), value=overhang)

    def view(self, padded: torch.Tensor) -> torch.Tensor:
        """All windows of a padded tensor (n, c, *size) as (n, c, *out, prod(kernel))."""
        view = padded
        for axis, (k, s, d) in enumerate(zip(self.kernel, self.strides, self.dilations, strict=True)):
            view = view.unfold(axis + 2, (k - 1) * d + 1, s)[..., ::d]
            view = view.narrow(axis + 2, 0, self.out[axis])
        return view.flatten(2 + len(self.out))


def _both_sides(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """ONNX lists the begins, then the ends; torch pairs them, the last axis first."""
    return [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]
