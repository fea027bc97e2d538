from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.errors import BadRequest
from onnxplain.request import targets
from onnxplain.rows import TOP, Target

CLASSES = targets.Output("y", (10,), ("cat", "dog"))
TOKENS = targets.Output("y", (7, 5))
PIXELS = targets.Output("y", (4, 6, 8))
NUMBER = targets.Output("y", ())


@pytest.mark.parametrize(
    ("output", "wanted", "target"),
    [
        (CLASSES, "top", TOP),
        (CLASSES, None, TOP),
        (CLASSES, 3, Target((3,))),
        (CLASSES, np.int32(3), Target((3,))),
        (CLASSES, "Dog", Target((1,))),
        (CLASSES, (3, 4), Target((3, 4), (1.0, -1.0))),
        (CLASSES, ("top", "cat"), Target((-1, 0), (1.0, -1.0))),
        (TOKENS, (3, 4), Target((19,))),
        (TOKENS, ((3, 4), (0, 1)), Target((19, 1), (1.0, -1.0))),
        (PIXELS, (1, 2, 3), Target((48 + 16 + 3,))),
        (PIXELS, ((1, 2, 3), "top"), Target((67, -1), (1.0, -1.0))),
        (NUMBER, 0, Target((0,))),
        (NUMBER, "top", TOP),
    ],
)
def test_forms(output: targets.Output, wanted: Any, target: Target) -> None:
    assert targets.resolve(output, wanted, 2) == [target, target]


@given(index=st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 7)))
def test_what_comes_back_is_what_was_written(index: tuple[int, int, int]) -> None:
    for wanted in (index, ((0, 0, 0), (3, 5, 7)) if index == (0, 0, 0) else (index, (0, 0, 0))):
        (target,) = targets.resolve(PIXELS, wanted, 1)
        assert targets.returned(PIXELS, target) == wanted
    weights = np.zeros(PIXELS.shape)
    weights[index], weights[0, 0, 1] = 2.5, -0.5
    (target,) = targets.resolve(PIXELS, weights, 1)
    np.testing.assert_array_equal(targets.returned(PIXELS, target), weights)


def test_per_row() -> None:
    three = [Target((1,)), Target((2,)), Target((0, 1), (1.0, -1.0))]
    assert targets.resolve(CLASSES, [1, 2, (0, 1)], 3) == three
    assert targets.resolve(CLASSES, np.array([1, 2]), 2) == three[:2]
    weights = np.eye(10)[[1, 2]]
    assert targets.resolve(CLASSES, weights, 2) == three[:2]
    with pytest.raises(BadRequest, match="1 targets for 2 rows"):
        targets.resolve(CLASSES, [1], 2)


@pytest.mark.parametrize(
    ("output", "wanted", "match"),
    [
        (CLASSES, 10, "out of range"),
        (CLASSES, -1, "out of range"),
        (CLASSES, True, "none of"),
        (CLASSES, (1, 2, 3), "1 axes per row"),
        (TOKENS, 3, r"2 axes per row, \[7, 5\]: give 2 indices"),
        (TOKENS, (5, 5), "out of range"),
        (PIXELS, (1, 2), "3 axes"),
        (NUMBER, 1, "single number"),
        (CLASSES, np.full(10, np.nan), "NaN"),
        (CLASSES, {"class": 3}, "none of"),
    ],
)
def test_what_is_wrong_is_said(output: targets.Output, wanted: Any, match: str) -> None:
    with pytest.raises(BadRequest, match=match):
        targets.resolve(output, wanted, 1)


def test_the_top_class_takes_its_place() -> None:
    assert targets.with_top(TOP, 7) == Target((7,))
    assert targets.with_top(Target((-1, 2), (1.0, -1.0)), 7) == Target((7, 2), (1.0, -1.0))
    with pytest.raises(BadRequest, match="over itself"):
        targets.with_top(Target((-1, 2), (1.0, -1.0)), 2)
