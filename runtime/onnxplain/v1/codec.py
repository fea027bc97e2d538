"""Arrays, option values and targets as messages and back; server and client share it.

What comes from the wire is not trusted: a declared size is compared with the bytes that are really there before any
array is made of them, and every error names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BadRequest
from onnxplain.v1 import explain_pb2 as pb

Array = NDArray[np.generic]

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
"""dtype name on the wire -> numpy dtype, little-endian."""

MOST_AXES = 8


def tensor(value: Any, where: str = "tensor") -> pb.Tensor:
    """``value`` as a message. Raises BadRequest where its dtype has no place on the wire."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadRequest(f"{where}: not an array ({error})") from error
    if array.dtype.name not in DTYPES:
        raise BadRequest(f"{where}: dtype {array.dtype} cannot be sent; give one of {', '.join(DTYPES)}")
    data = array.astype(DTYPES[array.dtype.name], order="C", copy=False).tobytes()
    return pb.Tensor(dtype=array.dtype.name, shape=array.shape, data=data)


def array(message: pb.Tensor, where: str) -> Array:
    """The array of a message, a read-only view on its bytes.

    Raises BadRequest where dtype, shape and bytes disagree.
    """
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise BadRequest(f"{where}: no dtype {message.dtype[:40]!r}; available: {', '.join(DTYPES)}")
    if len(message.shape) > MOST_AXES:
        raise BadRequest(f"{where}: {len(message.shape)} axes, at most {MOST_AXES} are taken")
    shape = tuple(message.shape)
    if any(size < 0 for size in shape):
        raise BadRequest(f"{where}: shape {list(shape)} has a negative axis")
    data = message.data  # one copy per access: upb makes a new bytes object each time
    # Python integers: a product of sizes such as [2**32, 2**32] does not wrap around.
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise BadRequest(f"{where}: {message.dtype} of shape {list(shape)} takes {needed} bytes, got {len(data)}")
    if message.dtype == "bool" and any(data.strip(b"\x00\x01")):
        raise BadRequest(f"{where}: a bool is a byte of 0 or 1, got others")
    # numpy cannot make a view of nothing with a shape such as (0, 2**40, 2**40).
    try:
        view = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        raise BadRequest(f"{where}: shape {list(shape)}: {error}") from error
    return view.astype(dtype.newbyteorder("="), copy=False)


def value(item: Any, where: str) -> pb.Value:
    """An option's value as a message. Raises BadRequest where it is of a kind that has no place on the wire."""
    match item:
        case None:
            return pb.Value()
        case bool() | np.bool_():
            return pb.Value(bool_value=bool(item))
        case int() | np.integer():
            if 2**63 <= item < 2**64:
                return pb.Value(uint_value=int(item))
            return pb.Value(int_value=_whole(item, where))
        case float() | np.floating():
            return pb.Value(double_value=float(item))
        case str():
            return pb.Value(string_value=item)
        case Mapping():
            entries = {_key(name, where): value(entry, f"{where}[{name!r}]") for name, entry in item.items()}
            return pb.Value(map_value=pb.ValueMap(values=entries))
        case list() | tuple():
            return pb.Value(list_value=pb.ValueList(values=[value(x, f"{where}[{i}]") for i, x in enumerate(item)]))
        case _ if hasattr(item, "__array__"):
            return pb.Value(tensor_value=tensor(item, where))
        case _:
            raise BadRequest(
                f"{where}: a {type(item).__name__} cannot be sent; give a number, string, array, list or dict"
            )


def _key(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise BadRequest(f"{where}: keys are names, got {name!r}")
    return name


def item(message: pb.Value, where: str) -> Any:
    """The value of a message: None, bool, int, float, str, array, tuple or dict."""
    kind = message.WhichOneof("kind")
    match kind:
        case None:
            return None
        case "tensor_value":
            return array(message.tensor_value, where)
        case "list_value":
            return tuple(item(x, f"{where}[{i}]") for i, x in enumerate(message.list_value.values))
        case "map_value":
            return {name: item(x, f"{where}[{name!r}]") for name, x in message.map_value.values.items()}
        case _:
            return getattr(message, kind)


def target(wanted: Any, where: str) -> pb.Target:
    """What one row is explained for as a message: "top", a class index or name, a pair, a position or a weighting.

    A tuple of whole numbers is sent as a position: whether two of them are one or a pair, the model's output decides.
    Raises BadRequest for anything else.
    """
    match wanted:
        case None:
            return pb.Target(top=pb.Target.Top())
        case str():
            return pb.Target(top=pb.Target.Top()) if wanted == "top" else pb.Target(class_name=wanted)
        case bool():
            raise BadRequest(
                f"{where}: {wanted} is not a class; give an index, a name, a pair, a position or a weighting"
            )
        case int() | np.integer():
            return pb.Target(class_index=_whole(wanted, where))
        case tuple() if all(isinstance(each, int | np.integer) for each in wanted):
            return pb.Target(position=pb.Target.Position(index=[_whole(each, where) for each in wanted]))
        case (first, second):
            return pb.Target(pair=pb.Target.Pair(first=target(first, where), second=target(second, where)))
        case _:
            return pb.Target(weighting=tensor(wanted, where))


def target_of(message: pb.Target, where: str) -> Any:
    """The inverse of `target`: "top", an int, a name, a tuple or an array."""
    match message.WhichOneof("kind"):
        case "class_index":
            return message.class_index
        case "class_name":
            return message.class_name
        case "position":
            return tuple(message.position.index)
        case "pair":
            return (target_of(message.pair.first, f"{where}.first"), target_of(message.pair.second, f"{where}.second"))
        case "weighting":
            return array(message.weighting, where)
        case _:
            return "top"


def _whole(number: Any, where: str) -> int:
    if not -(2**63) <= number < 2**63:
        raise BadRequest(f"{where}: {number} does not fit into 64 bits")
    return int(number)
