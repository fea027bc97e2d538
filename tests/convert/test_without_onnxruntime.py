"""A converter's machine need not have ONNX Runtime: parity is then measured with onnx's own evaluator."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxplain_convert

NETWORK = """<ir_version: 10, opset_import: ["" : 18]> net (float[n, 64] x) => (float[n, 4] y) {
    a = MatMul (x, weight)
    y = Tanh (a)
}"""


def test_a_model_with_external_data_is_converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(NETWORK)
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    artifact = onnxplain_convert.convert(tmp_path / "net.onnx", tmp_path / "net.explain.onnx")
    assert artifact.manifest.parity["y/absolute"] < 1e-6  # the same evaluator on both sides
