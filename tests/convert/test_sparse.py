"""Sparse initializers and constants, as ONNX Runtime reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, helper, numpy_helper

from onnxplain.errors import BadModel
from onnxplain_convert import differentiate
from tests.convert.models import run

WEIGHT = np.asarray([[1.0, 0.0, 0.0], [2.0, 0.0, 3.0]], np.float32)


def sparse(indices: list[int] | list[list[int]]) -> SparseTensorProto:
    values = numpy_helper.from_array(np.asarray([1.0, 2.0, 3.0], np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.asarray(indices, np.int64), "w_at"), [2, 3])


def model(tensor: SparseTensorProto, constant: bool) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    x, y = (helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 2), ("y", 3)))
    graph = helper.make_graph(nodes, "g", [x], [y], sparse_initializer=[] if constant else [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("indices", [[0, 3, 5], [[0, 0], [1, 0], [1, 2]]])
def test_is_what_it_stands_for(indices: list[int], constant: bool) -> None:
    proto = model(sparse(indices), constant)
    x, seed = np.asarray([[1.0, -1.0]], np.float32), np.asarray([[1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_array_equal(run(proto, {"x": x})["y"], x @ WEIGHT)
    found = run(differentiate(proto), {"x": x, "seed/y": seed})
    np.testing.assert_array_equal(found["y"], x @ WEIGHT)
    np.testing.assert_array_equal(found["gradient/x"], seed @ WEIGHT.T)


def test_indices_outside_the_shape_are_named() -> None:
    proto = model(sparse([0, 3, 5]), constant=False)
    del proto.graph.sparse_initializer[0].dims[:]
    proto.graph.sparse_initializer[0].dims.extend([1, 3])
    with pytest.raises(BadModel, match=r"'w'.*shape"):
        differentiate(proto)
