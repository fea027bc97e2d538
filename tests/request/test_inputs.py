from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.request import inputs


def manifest(*specs: TensorSpec, rows: str = "independent") -> Manifest:
    floats = tuple(spec for spec in specs if spec.dtype.startswith("float"))
    return Manifest(
        inputs=specs,
        outputs=(),
        explained=(),
        default_output="",
        differentiated=floats,
        stands_for={spec.name: spec.name for spec in floats},
        rules=(),
        gradients={},
        layers=(),
        rows=rows,
    )


PICTURE = manifest(TensorSpec("x", "float32", ("N", 3, 4, 4)))
TEXT = manifest(TensorSpec("ids", "int64", ("N", "L")), TensorSpec("mask", "int64", ("N", "L")))


def test_rows_of_one_input() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    for given in (x, x.astype(np.float32), {"x": x}, x.tolist()):
        rows = inputs.read(PICTURE, given)
        assert [row["x"].dtype for row in rows] == [np.float32] * 2
        np.testing.assert_array_equal(rows[1]["x"], x[1].astype(np.float32))


def test_integers_of_any_width_that_fit() -> None:
    rows = inputs.read(TEXT, {"ids": np.array([[1, 2]], np.int32), "mask": np.array([[True, False]])})
    assert rows[0]["ids"].dtype == rows[0]["mask"].dtype == np.int64
    narrow = manifest(TensorSpec("k", "uint8", ("N",)))
    with pytest.raises(BadRequest, match="do not fit uint8"):
        inputs.read(narrow, np.array([300]))


@pytest.mark.parametrize(
    ("match", "given"),
    [
        (r"must have shape \[rows, 3, 4, 4\], got \[3, 4, 4\]: the first axis counts rows", np.ones((3, 4, 4))),
        (r"must have shape \[rows, 3, 4, 4\], got \[1, 4, 4, 3\]", np.ones((1, 4, 4, 3))),
        ("must be float32, got uint8: raw pixels", np.ones((1, 3, 4, 4), np.uint8)),
        ("must be float32, got int64: convert it", np.ones((1, 3, 4, 4), np.int64)),
        ("must be float32, got <U1", np.array(["a"])),
        ("must be float32, got complex128$", np.ones((1, 3, 4, 4), complex)),
        (r"48 values that are NaN or infinite, the first at \[0, 0, 0, 0\]", np.full((1, 3, 4, 4), np.inf)),
        ("do not fit float32", np.full((1, 3, 4, 4), 1e300)),
        ("no rows", np.ones((0, 3, 4, 4))),
        ("unknown y; missing x; the model takes x", {"y": np.ones((1, 3, 4, 4))}),
        ("not an array", [[1.0], [1.0, 2.0]]),
    ],
)
def test_what_is_wrong_is_said(match: str, given: Any) -> None:
    with pytest.raises(BadRequest, match=match):
        inputs.read(PICTURE, given)


def test_nan_where_it_is_wanted() -> None:
    assert np.isnan(inputs.read(PICTURE, np.full((1, 3, 4, 4), np.nan), check_finite=False)[0]["x"]).all()


def test_several_inputs_agree() -> None:
    with pytest.raises(BadRequest, match="2 inputs: give a dict with an array for each of ids, mask"):
        inputs.read(TEXT, np.ones((1, 2), np.int64))
    with pytest.raises(BadRequest, match="different numbers of rows: ids 2, mask 1"):
        inputs.read(TEXT, {"ids": np.ones((2, 5), np.int64), "mask": np.ones((1, 5), np.int64)})
    with pytest.raises(BadRequest, match="axis 'L' has length 5 in input 'ids' and 6 in 'mask'"):
        inputs.read(TEXT, {"ids": np.ones((1, 5), np.int64), "mask": np.ones((1, 6), np.int64)})


def test_a_model_of_fixed_rows_takes_any_number() -> None:
    fixed = manifest(TensorSpec("x", "float32", (1, 2)), rows="fixed(1)")
    assert len(inputs.read(fixed, np.ones((5, 2)))) == 5


def test_a_model_without_a_row_axis() -> None:
    """Coupled rows of a fixed shape: the whole input is one row; an axis more counts rows."""
    bare = manifest(TensorSpec("x", "float32", (3, 4)), rows="coupled")
    assert [row["x"].shape for row in inputs.read(bare, np.ones((3, 4)))] == [(3, 4)]
    assert [row["x"].shape for row in inputs.read(bare, np.ones((2, 3, 4)))] == [(3, 4)] * 2


def test_an_input_that_is_the_same_for_all_rows() -> None:
    about = manifest(TensorSpec("x", "float32", ("N", 2)), TensorSpec("sizes", "int64", (3,)))
    rows = inputs.read(about, {"x": np.ones((2, 2)), "sizes": np.array([1, 2, 3])})
    assert [row["sizes"].tolist() for row in rows] == [[1, 2, 3]] * 2
    with pytest.raises(BadRequest, match=r"'sizes' must have shape \[3\], got \[2, 3\]"):
        inputs.read(about, {"x": np.ones((2, 2)), "sizes": np.ones((2, 3), np.int64)})
