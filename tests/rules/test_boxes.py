"""RoiAlign towards its boxes, which PyTorch does not differentiate: against central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain_convert import differentiate
from tests.reference import Reference
from tests.reference.differences import compare
from tests.rules.graphs import model

EXACT = 1e-6
"""Central differences with a step of 1e-5 are right to about 1e-9; a cell has up to 25 points."""


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("images", [1, 2])
def test_boxes_move_what_is_read(mode: str, ratio: int, images: int) -> None:
    text = f"""g (float[{images},3,9,8] x, float[4,4] boxes, int64[4] image) => (float[4,3,3,2] y) {{
      y = RoiAlign <mode = "{mode}", output_height = 3, output_width = 2, sampling_ratio = {ratio},
                    spatial_scale = 0.7> (x, boxes, image)
    }}"""
    rng = np.random.default_rng(images + ratio)
    corner = rng.uniform(0, 5, (4, 2))
    feeds = {
        "x": rng.standard_normal((images, 3, 9, 8)),
        "boxes": np.concatenate([corner, corner + rng.uniform(2, 5, (4, 2))], axis=1),
        "image": np.asarray([0, 1, 1, 0]) % images,
    }
    seed = rng.standard_normal((4, 3, 3, 2))
    proto = model(text)
    found = Reference(differentiate(proto, ["x", "boxes"], ["y"]))({**feeds, "seed/y": seed})
    for name in ("x", "boxes"):
        agreement = compare(Reference(proto), feeds, name, found[f"gradient/{name}"], {"y": seed}, rng)
        assert agreement.has_derivative
        assert agreement.error < EXACT, name
