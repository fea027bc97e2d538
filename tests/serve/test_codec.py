"""Messages and values: whatever goes in comes out the same, and what is not true to its own size is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxplain.errors import BadRequest
from onnxplain.v1 import codec
from onnxplain.v1 import explain_pb2 as pb

ARRAYS = hnp.arrays(
    st.sampled_from(sorted(codec.DTYPES)),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@settings(deadline=None)
@given(ARRAYS)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    message = pb.Tensor.FromString(codec.tensor(array).SerializeToString())
    back = codec.array(message, "x")
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()  # bytes and not values: NaN is kept, with its payload


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10, dtype=np.int16)[::-2],
        np.broadcast_to(np.float64(2.5), (3, 2)),
    ],
    ids=["big-endian", "transposed", "negative stride", "broadcast"],
)
def test_memory_layout_does_not_show(array: np.ndarray[Any, Any]) -> None:
    message = codec.tensor(array)
    np.testing.assert_array_equal(codec.array(message, "x"), array)
    assert message.data == np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


def test_the_bytes_on_the_wire_are_little_endian() -> None:
    assert codec.tensor(np.array([1], np.int32)).data == b"\x01\x00\x00\x00"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.Tensor(dtype="float32", shape=[2], data=b"\0" * 7), "takes 8 bytes, got 7"),
        (pb.Tensor(dtype="float32", shape=[2], data=b"\0" * 9), "takes 8 bytes, got 9"),
        (pb.Tensor(dtype="float32", shape=[2**32, 2**32], data=b""), f"takes {2**66} bytes, got 0"),
        (pb.Tensor(dtype="float32", shape=[2**62, 4], data=b""), f"takes {2**66} bytes, got 0"),
        (pb.Tensor(dtype="float32", shape=[-1], data=b""), "negative axis"),
        (pb.Tensor(dtype="float32", shape=[-2, -2], data=b"\0" * 16), "negative axis"),
        (pb.Tensor(dtype="float32", shape=[1] * 9, data=b"\0" * 4), "9 axes"),
        (pb.Tensor(dtype="float32", shape=[0, 2**62, 2**62], data=b""), "shape"),
        (pb.Tensor(dtype="float8", shape=[1], data=b"\0"), "no dtype 'float8'"),
        (pb.Tensor(dtype="object", shape=[1], data=b"\0" * 8), "no dtype 'object'"),
        (pb.Tensor(dtype="O", shape=[1], data=b"\0" * 8), "no dtype 'O'"),
        (pb.Tensor(dtype="", shape=[1], data=b"\0" * 4), "no dtype ''"),
        (pb.Tensor(dtype="bool", shape=[2], data=b"\1\2"), "byte of 0 or 1"),
        (pb.Tensor(), "no dtype"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(message: pb.Tensor, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        codec.array(message, "input 'x'")
    assert str(caught.value).startswith("input 'x'")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array([1j]), "text", None])
def test_dtypes_without_a_place_on_the_wire(array: Any) -> None:
    with pytest.raises(BadRequest, match="cannot be sent"):
        codec.tensor(array)


def test_a_ragged_list_is_no_array() -> None:
    with pytest.raises(BadRequest, match="x: not an array"):
        codec.tensor([[1], [2, 3]], "x")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES)
def test_a_value_comes_back_the_same_and_of_the_same_type(value: Any) -> None:
    back = codec.item(pb.Value.FromString(codec.value(value, "option").SerializeToString()), "option")
    assert back == value
    assert type(back) is type(value)


def test_numpy_scalars_are_numbers_and_arrays_are_arrays() -> None:
    assert codec.item(codec.value(np.int32(3), "o"), "o") == 3
    assert codec.item(codec.value(np.float32(0.5), "o"), "o") == 0.5
    assert codec.item(codec.value(np.bool_(True), "o"), "o") is True
    np.testing.assert_array_equal(codec.item(codec.value(np.eye(2), "o"), "o"), np.eye(2))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(2**64, "64 bits"), (-(2**63) - 1, "64 bits"), (object(), "an? object"), ({1: 2}, "keys are names")],
)
def test_values_without_a_place_on_the_wire(value: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        codec.value(value, "option 'o'")


@pytest.mark.parametrize(
    "target", ["top", 3, -1, "cat", (1, 2), (4, 5, 6), ("cat", 2), ("top", 0), ((1, 2), (3, 4)), np.eye(2)], ids=repr
)
def test_a_target_comes_back_the_same(target: Any) -> None:
    message = pb.Target.FromString(codec.target(target, "target").SerializeToString())
    np.testing.assert_equal(codec.target_of(message, "target"), target)


def test_no_target_is_the_top() -> None:
    assert codec.target_of(pb.Target(), "target") == "top"
    assert codec.target_of(codec.target(None, "target"), "target") == "top"


@pytest.mark.parametrize("target", [True, object(), 2**63, (1, 2**63), (1, object())])
def test_what_is_no_target(target: Any) -> None:
    with pytest.raises(BadRequest, match="target"):
        codec.target(target, "target")
