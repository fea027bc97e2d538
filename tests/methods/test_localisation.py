from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from onnxplain.methods.localisation import boxes, mask


def by_scipy(found: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    labels = np.zeros(found.shape, np.int32)
    scipy.ndimage.label(found, output=labels)
    rows = [
        (y.start, x.start, y.stop, x.stop, int((labels == k + 1).sum()))
        for k, (y, x) in enumerate(scipy.ndimage.find_objects(labels))
    ]
    return sorted(rows, key=lambda row: (-row[4], row))


@pytest.mark.parametrize("density", [0.1, 0.4, 0.55, 0.6, 0.7, 0.95])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 1), (40, 37)])
def test_boxes_are_scipys(shape: tuple[int, int], density: float) -> None:
    """Around a density of 0.6 components are long and wind around each other."""
    for seed in range(10):
        found = np.random.default_rng(seed).random(shape) < density
        assert sorted(map(tuple, boxes(found)), key=lambda row: (-row[4], row)) == by_scipy(found)
        assert (np.diff(boxes(found)[:, 4]) <= 0).all(), "largest first"


def test_shapes_that_meet_late() -> None:
    comb = np.zeros((5, 9), np.bool_)
    comb[:, ::2] = comb[-1] = True
    np.testing.assert_array_equal(boxes(comb), [[0, 0, 5, 9, 29]])
    corners = np.eye(3, dtype=np.bool_)
    assert len(boxes(corners)) == 3, "corners do not connect"


def test_mask_is_above_the_fraction_of_the_maximum() -> None:
    map_ = np.array([[-5.0, 0.2, 0.1], [1.0, 0.21, 0.5]])
    np.testing.assert_array_equal(mask(map_, 0.2), [[0, 0, 0], [1, 1, 1]])
    assert not mask(-map_ - 6, 0.2).any()
    assert not mask(np.zeros((2, 2)), 0.2).any()
    assert boxes(mask(np.zeros((2, 2)), 0.2)).shape == (0, 5)
