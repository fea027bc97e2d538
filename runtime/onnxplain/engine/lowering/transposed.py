"""What the rewrites of ConvTranspose read: a transposed convolution of images, with what is cropped off its result."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.lowering.groups import merged, together

_AXES = 2


@dataclass(frozen=True)
class Transposed:
    """out[o] = sum of x[i] * weight[k] over all i, k with o + skip = stride * i + dilation * k, 0 <= o < out_size.

    Every tuple is (vertical, horizontal).
    """

    x: ir.Value
    weight: ir.Value
    weight_size: tuple[int, ...]
    """(C, M, K, K), M per group."""
    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    skip: tuple[int, ...]
    """Elements of the full result that lie before the wanted ones: padding and cropping."""
    x_size: tuple[int, ...]
    out_size: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Of the result."""
        return self.weight_size[1] * self.group

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight_size[2:]

    @property
    def depthwise(self) -> bool:
        return self.group == self.weight_size[0] > 1

    def exchanged(self, op: Emit) -> tuple[ir.Value, int]:
        """The weight with result channels first, (M, C, K, K) with C per group, and the number of groups it is for.

        Only the axes change: the kernel still runs forwards.
        """
        c, m, *kernel = self.weight_size
        if self.depthwise:
            return self.weight, self.group
        if self.group == 1:
            return op("Transpose", self.weight, perm=[1, 0, 2, 3]), 1
        inner = c // self.group
        apart = op("Reshape", self.weight, op.ints(self.group, inner, m, *kernel))
        weight = op("Reshape", op("Transpose", apart, perm=[0, 2, 1, 3, 4]), op.ints(self.channels, inner, *kernel))
        n = together(self.group, inner, m) or 1
        return merged(op, weight, n, inner, self.channels), self.group // n

    @classmethod
    def of(cls, node: ir.Node) -> Transposed | None:
        """A ConvTranspose, or the Slice that crops one. None for another type than float32, a bias, unknown sizes, or
        groups that do not fill blocks.
        """
        start = (0,) * _AXES
        out = node.outputs[0]
        if node.op_type == "Slice":
            cropped = node.inputs[0].producer() if node.inputs[0] is not None else None
            found = _crop(node)
            if cropped is None or cropped.op_type != "ConvTranspose" or found is None:
                return None
            node, start = cropped, found
        x, weight, *bias = node.inputs
        x_size, w_size, out_size = sizes(x, _AXES), sizes(weight, 4), sizes(out, _AXES)
        if x is None or weight is None or x_size is None or w_size is None or out_size is None or bias:
            return None
        if out.dtype != ir.DataType.FLOAT:
            return None
        given = node.attributes
        if "output_shape" in given or given.get_string("auto_pad", "NOTSET") != "NOTSET":
            return None
        group = given.get_int("group", 1)
        per_group = w_size[0] // group
        if group > 1 and (per_group, w_size[1]) != (1, 1) and together(group, per_group, w_size[1]) is None:
            return None
        return cls(
            x=x,
            weight=weight,
            weight_size=w_size,
            group=group,
            strides=tuple(given.get_ints("strides", [1] * _AXES)),
            dilations=tuple(given.get_ints("dilations", [1] * _AXES)),
            skip=tuple(p + s for p, s in zip(given.get_ints("pads", [0] * 2 * _AXES), start, strict=False)),
            x_size=x_size,
            out_size=out_size,
        )


def crop_of(node: ir.Node) -> ir.Node | None:
    """The Slice that is all that becomes of a ConvTranspose's result, where it crops rows and columns."""
    uses = list(node.outputs[0].uses())
    user = uses[0][0] if len(uses) == 1 else None
    return user if user is not None and user.op_type == "Slice" and _crop(user) is not None else None


def sizes(value: ir.Value | None, axes: int) -> tuple[int, ...] | None:
    """Sizes of the last ``axes`` of four axes. None where there are not four, or a size is not known."""
    if value is None or value.shape is None or len(value.shape) != 4:
        return None
    known = tuple(d for d in value.shape[4 - axes :] if isinstance(d, int))
    return known if len(known) == axes else None


def _crop(node: ir.Node) -> tuple[int, ...] | None:
    """Where a Slice of both image axes begins. None for one that skips elements, counts from the end, or is unknown."""
    found = [ir.convenience.get_const_tensor(v) if v is not None else None for v in node.inputs[1:]]
    given = [[int(n) for n in tensor.numpy().reshape(-1)] for tensor in found if tensor is not None]
    if len(given) != len(found) or len(given) < 3:
        return None
    starts, _, axes, *steps = given
    if axes != [2, 3] or min(starts) < 0 or any(set(s) != {1} for s in steps):
        return None
    return tuple(starts)
