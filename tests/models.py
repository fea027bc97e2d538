"""Small models as ONNX text, with weights drawn from a seed: for tests of what happens around a model, not in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

HEADER = '<ir_version: 10, opset_import: ["": 20]>'

TWIN_F = f"""{HEADER} f (float[N, 2] x) => (float[N, 1] y)
<float one = {{1.0}}> {{
    x1, x2 = Split <axis = 1, num_outputs = 2> (x)
    r1 = Relu(x1)  r2 = Relu(x2)  a = Sub(r1, one)  b = Sub(a, r2)  y = Relu(b)
}}"""
"""f = ReLU(ReLU(x1) - 1 - ReLU(x2)) (Sundararajan et al. 2017, appendix B)."""

TWIN_G = f"""{HEADER} g (float[N, 2] x) => (float[N, 1] y)
<float one = {{1.0}}> {{
    x1, x2 = Split <axis = 1, num_outputs = 2> (x)
    a = Sub(x1, one)  r1 = Relu(a)  r2 = Relu(x2)  b = Sub(r1, r2)  y = Relu(b)
}}"""
"""g = ReLU(ReLU(x1 - 1) - ReLU(x2)): the same function, another network."""

BOUNDED = f"""{HEADER} h (float[N, 1] x) => (float[N, 1] y)
<float one = {{1.0}}> {{ a = Sub(one, x)  r = Relu(a)  y = Sub(one, r) }}"""
"""f = 1 - ReLU(1 - x) (section 2.1)."""

CNN = f"""{HEADER} cnn (float[N, 3, 12, 10] x) => (float[N, 5] p)
<float[8, 3, 3, 3] w1, float[8] b1, float[6, 8, 3, 3] w2, float[6] b2, float[5, 6] w3, float[5] b3> {{
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r1 = Relu(c1)
    m1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
    c2 = Conv <pads = [1, 1, 1, 1]> (m1, w2, b2)
    r2 = Relu(c2)
    g = GlobalAveragePool(r2)
    v = Flatten(g)
    z = Gemm <transB = 1> (v, w3, b3)
    p = Softmax <axis = -1> (z)
}}"""

COUPLED = f"""{HEADER} coupled (float[N, 3] x) => (float[N, 3] y)
<int64[1] rows = {{0}}, float[3, 3] w> {{
    m = ReduceMean(x, rows)
    a = Sub(x, m)
    b = Add(a, x)
    t = Tanh(b)
    y = MatMul(t, w)
}}"""

CHANNELS_LAST = f"""{HEADER} last (float[N, 8, 10, 3] x) => (float[N, 4] y)
<float[4, 3, 3, 3] w> {{
    t = Transpose <perm = [0, 3, 1, 2]> (x)
    c = Conv(t, w)
    r = Relu(c)
    g = GlobalAveragePool(r)
    y = Flatten(g)
}}"""

SEGMENTER = f"""{HEADER} segmenter (float[N, 3, H, W] x) => (float[N, 4, H, W] y)
<float[8, 3, 3, 3] w1, float[4, 8, 1, 1] w2> {{
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
    t1 = Tanh(c1)
    y = Conv(t1, w2)
}}"""

TEXT = f"""{HEADER} text (int64[N, L] ids, int64[N, L] mask) => (float[N, 3] y)
<float[20, 6] table, float[6, 8] w1, float[8, 3] w2, int64[1] last = {{2}}, int64[1] middle = {{1}}> {{
    e = Gather <axis = 0> (table, ids)
    h = MatMul(e, w1)
    t = Tanh(h)
    m = Cast <to = 1> (mask)
    k = Unsqueeze(m, last)
    s = Mul(t, k)
    r = ReduceSum <keepdims = 0> (s, middle)
    y = MatMul(r, w2)
}}"""

TWO_INPUTS = f"""{HEADER} two (float[N, 4] a, float[N, 3] b) => (float[N, 2] y)
<float[4, 2] wa, float[3, 2] wb> {{
    p = MatMul(a, wa)  q = MatMul(b, wb)  t = Tanh(q)  y = Mul(p, t)
}}"""

LINEAR = f"""{HEADER} linear (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w> {{ y = MatMul(x, w) }}"""

UNFIT = f"""{HEADER} unfit (float[N, 2] x) => (float[N, 2] y) {{ r = Abs(x)  y = Sqrt(r) }}"""
"""Its gradient at 0 is infinite times 0."""


def model(text: str, seed: int = 0) -> onnx.ModelProto:
    """The model; weights that are declared without a value are drawn normal and scaled by their fan-in."""
    made = parser.parse_model(text)
    draw, computed = np.random.default_rng(seed), {name for node in made.graph.node for name in node.output}
    for value in [each for each in made.graph.value_info if each.name not in computed]:
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        values = draw.normal(size=shape) * np.sqrt(2 / max(np.prod(shape[1:]), 1.0))
        made.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), value.name))
        made.graph.value_info.remove(value)
    return made


def weights(made: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
