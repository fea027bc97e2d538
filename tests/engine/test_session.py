"""ONNX Runtime's edge: providers, weights, errors, stopping."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxplain.engine import Engine, session, weights
from onnxplain.engine.program import build
from onnxplain.errors import BadRequest, Cancelled, LimitExceeded, NotFound, OnnxplainError, ProviderUnavailable
from tests.engine.artifacts import GRADIENT, Tanh


def chain(n: int, size: int) -> bytes:
    """``n`` products of square matrices, one after the other."""
    lines = "\n".join(f"x{i + 1} = MatMul(x{i}, x)" for i in range(n))
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    chain (float[{size},{size}] x) => (float[{size},{size}] x{n}) {{ x0 = Identity(x) {lines} }}"""
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def test_cpu_is_what_auto_finds_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert session.resolve_provider("auto") == session.resolve_provider("cpu") == "cpu"
    with pytest.raises(ProviderUnavailable, match=r"pip uninstall onnxruntime.*onnxplain\[gpu\]"):
        session.resolve_provider("cuda")
    with pytest.raises(BadRequest, match="there are auto, cpu and cuda"):
        session.resolve_provider("tpu")


def test_auto_takes_no_cuda_package_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(session.PROVIDERS.values()))
    monkeypatch.setattr(session, "_finds_device", lambda: False)
    assert session.resolve_provider("auto") == "cpu"
    assert session.resolve_provider("cuda") == "cuda"
    monkeypatch.setattr(session, "_finds_device", lambda: True)
    assert session.resolve_provider("auto") == "cuda"
    assert session.resolve_provider("cpu") == "cpu"


def test_asking_for_cuda_and_getting_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself only prints a line and makes the session on the CPU."""
    asked: list[Any] = []

    make = onnxruntime.InferenceSession

    def fallen(model: bytes, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        return make(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(session.PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", fallen)
    with pytest.raises(ProviderUnavailable, match="fell back to CPUExecutionProvider"):
        session.open_session(chain(1, 2), {}, "cuda")
    assert asked[0] == ("CUDAExecutionProvider", {"use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"})


def test_without_onnxruntime_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderUnavailable, match=r'pip install "onnxplain\[cpu\]"'):
        Engine(Tanh.drawn("float32").artifact())


def test_a_model_that_cannot_be_loaded() -> None:
    with pytest.raises(OnnxplainError, match="ONNX Runtime failed while making a session"):
        session.open_session(b"not a model", {}, "cpu")


def test_a_run_is_stopped_from_another_thread() -> None:
    model = session.open_session(chain(4000, 192), {}, "cpu", threads=1)
    ended = threading.Event()

    def stop() -> None:
        while not ended.wait(0.005):
            model.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    x = np.eye(192, dtype=np.float32)
    with pytest.raises(Cancelled):
        model.run({"x": x}, ["x4000"])
    ended.set()
    stopper.join()
    np.testing.assert_array_equal(model.run({"x": x}, ["x4000"])["x4000"], x)  # stopping one run leaves the next alone


def test_out_of_memory_says_what_to_do() -> None:
    text = """<ir_version: 10, opset_import: ["": 18]>
    big (int64[2] shape) => (float[n,m] y) { y = ConstantOfShape(shape) }"""
    model = session.open_session(onnx.parser.parse_model(text).SerializeToString(), {}, "cpu")
    with pytest.raises(LimitExceeded, match="lower max_rows"):
        model.run({"shape": np.array([2**24, 2**24])}, ["y"])


def test_kept_outputs_go_back_in_as_they_are() -> None:
    model = session.open_session(chain(1, 8), {}, "cpu")
    x = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    kept = model.run({"x": model.put(x)}, [], ["x1"])["x1"]
    squared = model.run({"x": kept}, ["x1"])["x1"]
    np.testing.assert_allclose(squared, np.linalg.matrix_power(x, 4), rtol=1e-4, atol=1e-3)


def test_weights_travel_beside_the_program() -> None:
    """Large ones as arrays and not in the bytes; small ones in the graph, where folding sees them."""
    net = Tanh.drawn("float32")
    program = build(net.artifact(), GRADIENT)
    model, arrays = weights.split(program)
    np.testing.assert_array_equal(arrays["w"], net.w)
    assert net.w.tobytes() not in model
    assert all(array.nbytes >= weights.SMALLEST for array in arrays.values())
    again, _ = weights.split(program)
    assert again == model
    other = net.w + 1
    _, replaced = weights.split(program, {"w": other})
    np.testing.assert_array_equal(replaced["w"], other)
    assert program.model.graph.initializers["w"].const_value is not None
    np.testing.assert_array_equal(program.model.graph.initializers["w"].const_value.numpy(), net.w)


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        ({"ww": np.zeros(1, np.float32)}, NotFound, "no weight 'ww' in the model; nearest: w"),
        ({"w": np.zeros((18, 63), np.float32)}, BadRequest, r"weight 'w' is float32 \(18, 64\).*\(18, 63\)"),
        ({"w": np.zeros((18, 64))}, BadRequest, "float64"),
    ],
)
def test_wrong_weights(overrides: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says), Engine(Tanh.drawn("float32").artifact(), "cpu", weights=overrides):
        pass
