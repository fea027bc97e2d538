"""GridSample, AffineGrid, DeformConv and RoiAlign against PyTorch's autograd."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.rules.single_node import EXACT, Node, Shapes, check, normal

F = torch.nn.functional
PADDINGS = ["zeros", "border", "reflection"]
FORMS = [
    *itertools.product(["bilinear", "nearest", "bicubic"], PADDINGS, [0, 1], [2]),
    *itertools.product(["bilinear", "nearest"], PADDINGS, [0, 1], [3]),
]
PLACES = 1e-4
"""In float32 a place on an axis of 5 elements is known to 1e-6, and weights of cubic interpolation are steep."""


@pytest.mark.parametrize(("mode", "padding", "align", "rank"), FORMS)
@pytest.mark.parametrize(("opset", "shapes"), [(18, "static"), (21, "static"), (21, "batch"), (21, "symbolic")])
def test_grid_sample(mode: str, padding: str, align: int, rank: int, shapes: Shapes, opset: int) -> None:
    """Places up to three times as far out as the image is wide; torch calls trilinear bilinear."""
    if opset == 18 and rank == 3:
        opset = 20  # the first with three spatial axes
    names = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
    attributes = {"mode": names[mode] if opset > 18 else mode, "padding_mode": padding, "align_corners": align}
    sizes, out = [4, 5, 3][:rank], [3, 2, 2][:rank]
    inputs = {"x": normal(2, 3, *sizes), "grid": (normal(2, *out, rank, seed=1) * 1.3).astype(np.float32)}
    node = Node("GridSample", inputs, attributes, shapes=shapes, opset=opset)

    def truth(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=bool(align))

    # onnx's reference implementation does not know the old names of the modes
    check(node, truth, ["x", "grid"], exact=EXACT if opset > 18 else None, rounded=PLACES)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [1, 3])
def test_places_on_the_elements(padding: str, size: int) -> None:
    """At the kinks the slope is PyTorch's: that of the side above, none on a border that is held."""
    x = normal(1, 2, size, size)
    steps = np.linspace(-1, 1, 3, dtype=np.float32) if size > 1 else np.zeros(3, np.float32)
    grid = np.stack(np.meshgrid(steps, steps), -1)[None]
    node = Node("GridSample", {"x": x, "grid": grid}, {"padding_mode": padding, "align_corners": 1})

    def truth(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, padding_mode=padding, align_corners=True)

    # onnx's reference implementation divides by zero where there is nothing to reflect between
    check(node, truth, ["x", "grid"], exact=EXACT if size > 1 else None, rounded=PLACES)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 2, 3, 4)])
def test_affine_grid(align: int, size: tuple[int, ...]) -> None:
    rank = len(size) - 2
    inputs = {"theta": normal(2, rank, rank + 1), "size": np.array(size, np.int64)}
    node = Node("AffineGrid", inputs, {"align_corners": align}, constants=("size",))
    check(node, lambda theta, _: F.affine_grid(theta, list(size), align_corners=bool(align)), ["theta"])


@pytest.mark.parametrize(
    ("group", "offset_group", "masked", "attributes"),
    [
        (1, 1, False, {}),
        (1, 1, True, {"pads": [1, 0, 1, 1]}),
        (2, 1, True, {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
        (1, 2, True, {"dilations": [1, 2], "pads": [0, 1, 0, 1]}),
        (2, 4, False, {"strides": [1, 2]}),
    ],
)
@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
def test_deform_conv(
    group: int, offset_group: int, masked: bool, attributes: dict[str, list[int]], shapes: Shapes
) -> None:
    """As a sum of grid samples, one for every place in the kernel and every group of offsets."""
    n, c, m, size, kernel = 2, 4, 6, (5, 6), (3, 2)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0, 0, 0, 0])
    spans = zip(size, pads[:2], pads[2:], kernel, dilations, strides, strict=True)
    out = [(i + p + q - (k - 1) * d - 1) // s + 1 for i, p, q, k, d, s in spans]
    count = kernel[0] * kernel[1]
    inputs = {
        "x": normal(n, c, *size),
        "w": normal(m, c // group, *kernel),
        "offset": normal(n, offset_group * count * 2, *out),
        "b": normal(m),
        "mask": normal(n, offset_group * count, *out) if masked else None,
    }
    given = {"group": group, "offset_group": offset_group, **attributes}
    node = Node("DeformConv", inputs, given, shapes=shapes)

    def truth(
        x: torch.Tensor, w: torch.Tensor, offset: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        offset = offset.reshape(n, offset_group, count, 2, *out)
        factor = torch.ones(n, offset_group, count, *out, dtype=x.dtype) if mask is None else mask
        factor = factor.reshape(n, offset_group, count, *out)
        rows, columns = (torch.arange(o, dtype=x.dtype) * s - p for o, s, p in zip(out, strides, pads, strict=False))
        images = x.reshape(n, offset_group, -1, *size)
        read = []
        for k in range(count):
            i, j = divmod(k, kernel[1])
            y = offset[:, :, k, 0] + rows[:, None] + i * dilations[0]
            z = offset[:, :, k, 1] + columns[None, :] + j * dilations[1]
            grid = torch.stack([z / (size[1] - 1), y / (size[0] - 1)], -1) * 2 - 1
            sampled = [F.grid_sample(images[:, o], grid[:, o], align_corners=True) for o in range(offset_group)]
            read.append((torch.stack(sampled, 1) * factor[:, :, k, None]).reshape(n, c, *out))
        read_all = torch.stack(read, 2).reshape(n, group, c // group * count, -1)
        y = w.reshape(group, m // group, -1) @ read_all
        return y.reshape(n, m, *out) + b.reshape(-1, 1, 1)

    check(node, truth, [name for name, value in inputs.items() if value is not None], rounded=PLACES)
