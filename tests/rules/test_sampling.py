"""GridSample, AffineGrid, DeformConv, RoiAlign and MaxRoiPool against PyTorch's autograd."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from onnxplain.artifact import gradient_name, seed_name
from tests.reference import Reference
from tests.reference.differences import compare
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


BOXES = np.array(
    [[0.3, 0.2, 6.1, 5.3], [1.7, 2.4, 2.9, 9.8], [-3.0, -1.5, 4.2, 2.2], [5.0, 6.0, 12.0, 13.0]], np.float32
)
"""x1, y1, x2, y2: inside, long, and across each corner of an image of 7 by 8."""


def roi_align(x: torch.Tensor, index: torch.Tensor, attributes: dict[str, Any]) -> torch.Tensor:
    """By the operator's text, one point after the other; grid_sample reads them."""
    cells = attributes["output_height"], attributes["output_width"]
    shift = 0.5 if attributes["coordinate_transformation_mode"] == "half_pixel" else 0.0
    height, width = x.shape[2:]
    rows = []
    for box, image in zip(torch.tensor(BOXES, dtype=x.dtype) * attributes["spatial_scale"] - shift, index, strict=True):
        extents = [box[3] - box[1], box[2] - box[0]]
        if not shift:
            extents = [torch.clamp(e, min=1.0) for e in extents]
        axes = []
        for start, extent, count, size in zip((box[1], box[0]), extents, cells, (height, width), strict=True):
            step = extent / count
            number = attributes["sampling_ratio"] or int(torch.ceil(step))
            points = start + step * (
                torch.arange(count)[:, None] + (torch.arange(number, dtype=x.dtype) + 0.5) / number
            )
            axes.append((points, (points >= -1) & (points <= size)))
        (ys, in_y), (xs, in_x) = axes
        shape = (*cells, ys.shape[1], xs.shape[1])
        grid = torch.stack([xs[None, :, None, :].expand(shape), ys[:, None, :, None].expand(shape)], -1)
        grid = grid / torch.tensor([width - 1, height - 1]) * 2 - 1
        flat = grid.reshape(1, -1, 1, 2)
        read = F.grid_sample(x[image][None], flat, padding_mode="border", align_corners=True)
        read = read.reshape(x.shape[1], *grid.shape[:-1]) * (in_y[:, None, :, None] & in_x[None, :, None, :])
        rows.append(read.mean((-1, -2)))
    return torch.stack(rows)


@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
def test_roi_align(coordinates: str, ratio: int, shapes: Shapes) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "sampling_ratio": ratio, "spatial_scale": 0.75}
    attributes |= {"output_height": 3, "output_width": 2}
    index = np.array([1, 0, 1, 1])
    node = Node("RoiAlign", {"x": normal(2, 3, 7, 8), "rois": BOXES, "index": index}, attributes, shapes=shapes)
    check(node, lambda x, _, index: roi_align(x, index, attributes), ["x"], rounded=PLACES)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_with_maxima(ratio: int) -> None:
    """Against differences of the forward pass in float64: no framework has the operator's own kind of maximum."""
    attributes = {"mode": "max", "sampling_ratio": ratio, "output_height": 3, "output_width": 2}
    index = np.array([1, 0, 1, 1])
    node = Node("RoiAlign", {"x": normal(2, 3, 7, 8), "rois": BOXES, "index": index}, attributes)
    forward, feeds = Reference(node.model()), node.feeds()
    g = normal(4, 3, 3, 2, seed=6)
    name = gradient_name("gradient", "x")
    gradient = Reference(node.differentiated(["x"]))({**feeds, seed_name("y"): g}, [name])[name]
    agreement = compare(
        lambda f: forward(f, ["y"]),
        {**feeds, "x": feeds["x"].astype(np.float64)},
        "x",
        gradient,
        {"y": g},
        np.random.default_rng(0),
    )
    assert agreement.has_derivative
    assert agreement.error < 1e-6


@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
def test_max_roi_pool(shapes: Shapes) -> None:
    """Boxes in whole elements, their ends included; onnx has no reference implementation."""
    index, cells, scale = np.array([1, 0, 1, 1]), (3, 2), 0.5
    boxes = np.concatenate([index[:, None], np.round(BOXES * 1.5)], 1).astype(np.float32)
    attributes = {"pooled_shape": list(cells), "spatial_scale": scale}
    node = Node("MaxRoiPool", {"x": normal(2, 3, 7, 8), "rois": boxes}, attributes, shapes=shapes)

    def truth(x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        results = []
        for image, *corners in rois.tolist():
            x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(c) * scale + 0.5), c)) for c in corners)
            for p, q in itertools.product(range(cells[0]), range(cells[1])):
                top, bottom = span(y1, y2, cells[0], p, x.shape[2])
                left, right = span(x1, x2, cells[1], q, x.shape[3])
                region = x[int(image), :, top:bottom, left:right].flatten(1)
                results.append(region.amax(1) if region.shape[1] else torch.zeros(3, dtype=x.dtype))
        return torch.stack(results).reshape(len(index), *cells, 3).permute(0, 3, 1, 2)

    check(node, truth, ["x"], exact=None)


def span(first: int, last: int, cells: int, cell: int, size: int) -> tuple[int, int]:
    """Where a cell of a box lies on an axis, cut to it."""
    step = max(last - first + 1, 1) / cells
    ends = math.floor(cell * step) + first, math.ceil((cell + 1) * step) + first
    return min(max(ends[0], 0), size), min(max(ends[1], 0), size)
