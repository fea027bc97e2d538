"""GridSample and AffineGrid against PyTorch's autograd."""

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
