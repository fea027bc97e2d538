"""A small network as a plain ONNX file, a picture for it, and a cache folder that is not the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxplain.cli import main


def network() -> onnx.ModelProto:
    """Conv, Relu, mean, Gemm, Softmax on (n, 3, 16, 16): five classes."""
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "c": rng.normal(size=4),
        "v": rng.normal(size=(4, 5)) * 3,
        "b": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["conv"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu1"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "v", "b"], ["logits"], "dense"),
        helper.make_node("Softmax", ["logits"], ["p"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Noise, so that no two channels or sides are alike."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def run(*arguments: str | Path, status: int = 0) -> Result:
    """The command line in this process; the test fails where it ends otherwise than expected."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result
