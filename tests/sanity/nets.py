"""Small networks with random weights, as artifacts: what an audit meets in deployed files."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from onnxplain.artifact import Artifact
from onnxplain.sanity.specimens import Specimen
from onnxplain_convert import convert
from tests import models

NORMALISED = f"""{models.HEADER} normalised (float[N, 2, 8, 8] x) => (float[N, 4] y)
<float[6, 2, 3, 3] w1, float[6] b1, float[6] gamma, float[6] beta, float[6] mean, float[6] variance,
 float[6, 6, 3, 3] shared, float[6, 4] w2> {{
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    n1 = BatchNormalization (c1, gamma, beta, mean, variance)
    t1 = Tanh(n1)
    c2 = Conv <pads = [1, 1, 1, 1]> (t1, shared)
    t2 = Tanh(c2)
    c3 = Conv <pads = [1, 1, 1, 1]> (t2, shared)
    g = GlobalAveragePool(c3)
    v = Flatten(g)
    y = MatMul(v, w2)
}}"""
"""Smooth, with a normalisation whose statistics run and one weight that two layers share."""

QDQ = f"""{models.HEADER} qdq (float[N, 4] x) => (float[N, 3] y)
<float s = {{0.02}}, int8 z = {{3}}, float[3] steps = {{0.01, 0.02, 0.04}}, int8[3] zeros = {{0, 1, 0}},
 int8[4, 3] codes = {{100,2,3,-40,5,60,7,-80,90,10,110,-12}}, float[1] bs = {{0.001}},
 int32[3] bias = {{50, -70, 90}}> {{
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    w = DequantizeLinear <axis = 1> (codes, steps, zeros)
    b = DequantizeLinear(bias, bs)
    y = Gemm(d, w, b)
}}"""

CONSTANTS = f"""{models.HEADER} constants (float[N, 2] x) => (float[N, 2] y) {{
    w = Constant <value = float[2, 2] {{1, 2, -3, 4}}> ()
    y = MatMul(x, w)
}}"""


def artifact(text: str, seed: int = 0) -> Artifact:
    """With weights from a seed; variances are positive."""
    proto = models.model(text, seed)
    for tensor in proto.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(tensor)) + 0.5, tensor.name))
    return convert(proto)


DIGITS = f"""{models.HEADER} digits (float[N, 1, 28, 28] x) => (float[N, 5] z)
<float[8, 1, 5, 5] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2, float[392, 5] w3, float[5] b3> {{
    c1 = Conv <pads = [2, 2, 2, 2]> (x, w1, b1)
    r1 = Relu(c1)
    m1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
    c2 = Conv <pads = [1, 1, 1, 1]> (m1, w2, b2)
    r2 = Relu(c2)
    m2 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
    v = Flatten(m2)
    z = Gemm (v, w3, b3)
}}"""


def blobs(n: int, seed: int = 0) -> list[Specimen]:
    """Soft discs on black, (1, 1, 28, 28): most of every picture is the baseline, as in MNIST."""
    rng, found = np.random.default_rng(seed), []
    y, x = np.mgrid[:28, :28]
    for k in range(n):
        row, column = rng.uniform(8, 20, 2)
        disc = np.clip(1.3 - np.hypot(y - row, x - column) / rng.uniform(3, 7), 0, 1)
        found.append(Specimen(f"disc {k}", {"x": disc[None, None].astype(np.float32)}))
    return found
