"""The whole way: real models, the server as a process, the client here, each answer equal to the in-process one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import onnxplain
from onnxplain.client import Client
from onnxplain.errors import BadRequest, DeadlineExceeded, LimitExceeded, NotFound, OnnxplainError, Unavailable
from onnxplain.explanation import Explanation
from onnxplain_convert import convert
from tests.serve import nets
from tests.serve.process import PATIENCE, Process

X = np.random.default_rng(0).normal(size=(3, 3, 12, 12)).astype(np.float32)
V = np.random.default_rng(1).normal(size=(2, 7)).astype(np.float32)

REQUESTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("cnn", "gradient", "top", {}),
    ("cnn", "gradient_x_input", [0, (1, 2), "top"], {}),
    ("cnn", "integrated_gradients", 4, {"n_steps": 20}),
    ("cnn", "integrated_gradients", (4, 1), {"n_steps": 10, "baseline": X[:1] * 0.5, "quadrature": "gauss_legendre"}),
    ("cnn", "smoothgrad", "top", {"n_samples": 9, "seed": 5}),
    ("cnn", "vargrad", 2, {"n_samples": 6, "seed": 2**64 - 1, "base": "gradient_x_input"}),
    ("cnn", "guided_backprop", "top", {}),
    ("cnn", "grad_cam", "top", {"layer": "relu"}),
    ("cnn", "guided_grad_cam", 3, {}),
    ("cnn", "layer_cam", "top", {"maps": [0, 2], "neurons": [(0, 1), (2, 3)], "per_map": True}),
    ("cnn", "smooth_grad_cam_plus_plus", 1, {"seed": 4, "n_samples": 5, "maps": np.array([1])}),
    ("mlp", "gradient", np.array([0.5, -1.0, 0.0, 0.25, 0.0]), {}),
    ("mlp", "integrated_gradients", "top", {"n_steps": 5}),
    ("mlp", "integrated_gradients", "top", {"tolerance": 0.001, "baseline": 0.1}),
    ("mlp", "smoothgrad", [3, 0], {"n_samples": 20, "seed": 1, "base": "integrated_gradients", "n_steps": 4}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain file, an artifact, and a file that is no model."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(nets.convolutional(), folder / "cnn.onnx")
    onnx.save(nets.smooth(), folder.parent / "mlp.onnx")
    convert(folder.parent / "mlp.onnx", folder / "mlp.explain.onnx")
    (folder / "broken.onnx").write_bytes(b"not a model")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def here(folder: Path, cache: Path) -> Iterator[dict[str, onnxplain.Model]]:
    """The same models in process."""
    with onnxplain.load(folder / "cnn.onnx", cache=cache) as cnn, onnxplain.load(folder / "mlp.explain.onnx") as mlp:
        yield {"cnn": cnn, "mlp": mlp}


@pytest.fixture(scope="module")
def server(folder: Path, cache: Path) -> Iterator[Process]:
    """One server for all tests that leave it as it was."""
    server = Process(folder, cache, "--max-message-mib", "1", "--max-rows", "2000000")
    yield server
    server.kill()


@pytest.fixture
def client(server: Process) -> Iterator[Client]:
    with server.client() as client:
        yield client


def inputs(model: str) -> np.ndarray[Any, Any]:
    return X if model == "cnn" else V


def same(served: Explanation, local: Explanation) -> None:
    """Equal but for the last bits: rows that share a run with others may be summed in another order.

    Seeds are drawn where none is given, so they are compared where they are.
    """
    for name in (
        "targets",
        "n_rows",
        "converged",
        "options",
        "method",
        "output",
        "model_digest",
        "provider",
        "versions",
    ):
        np.testing.assert_equal(getattr(served, name), getattr(local, name), err_msg=name)
    for name in ("attributions", "error", "extras"):
        one, other = getattr(served, name), getattr(local, name)
        assert (one is None) == (other is None), name
        assert sorted(one or {}) == sorted(other or {})  # the wire keeps no order of names
        for key in one or {}:
            close(one[key], other[key], other[key])
    for name in ("scores", "baseline_scores", "convergence_delta"):
        one, other = getattr(served, name), getattr(local, name)
        assert (one is None) == (other is None), name
        if one is not None:
            close(one, other, local.scores)


def close(one: Any, other: Any, scale: Any) -> None:
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    # Sums of at most some hundred float32 terms: 1e-5 of what is summed is a hundred times their rounding.
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(np.max(np.abs(scale), initial=0.1)))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: f"{r[0]}-{r[1]}")
def test_the_client_gives_what_the_model_gives(
    client: Client, here: dict[str, onnxplain.Model], request_: tuple[str, str, Any, dict[str, Any]]
) -> None:
    model, method, target, options = request_
    served = client.model(model).explain(inputs(model), method, target, **options)
    local = here[model].explain(inputs(model), method, target, **{**options, "seed": served.seed})
    same(served, local)
    assert served.seed == options.get("seed", served.seed)
    assert served.warnings == local.warnings


def test_32_requests_at_once_are_each_its_own(client: Client, here: dict[str, onnxplain.Model]) -> None:
    asked = [REQUESTS[k % len(REQUESTS)] for k in range(32)]
    with ThreadPoolExecutor(32) as pool:
        calls = [
            pool.submit(client.model(model).explain, inputs(model) + k, method, target, **options)
            for k, (model, method, target, options) in enumerate(asked)
        ]
    for k, (call, (m, method, target, options)) in enumerate(zip(calls, asked, strict=True)):
        served = call.result(PATIENCE)
        same(served, here[m].explain(inputs(m) + k, method, target, **{**options, "seed": served.seed}))


def test_what_is_served_and_what_is_not(client: Client, server: Process, here: dict[str, onnxplain.Model]) -> None:
    served = {model.name: model for model in client.models()}
    assert {name: model.state for name, model in served.items()} == {"cnn": "ready", "mlp": "ready", "broken": "failed"}
    assert served["broken"].reason.startswith("broken.onnx: not an ONNX model")
    assert served["cnn"].digest == here["cnn"].manifest.digest
    assert "cache" not in served["broken"].reason
    about = client.model("cnn").describe()
    assert {method.name for method in about.methods} == set(onnxplain.METHODS)
    assert [layer.name for layer in about.layers][:2] == [layer.name for layer in here["cnn"].manifest.layers][:2]


def test_serving_is_said_only_when_no_model_is_loading(folder: Path, cache: Path) -> None:
    server = Process(folder, cache)
    try:
        with Client(server.address) as client, grpc.insecure_channel(server.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE, wait_for_ready=True):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            assert {model.state for model in client.models()} == {"ready", "failed"}
        assert server.end() == 0
    finally:
        server.kill()


BAD: list[tuple[Any, dict[str, Any], type[OnnxplainError], str]] = [
    (np.full_like(X, np.nan), {}, BadRequest, "NaN"),
    (X[:, :2], {}, BadRequest, r"\(?\[?3, 2, 12, 12"),
    (X[0], {}, BadRequest, "12"),
    (X[:0], {}, BadRequest, "no rows"),
    (X.astype(np.int64), {}, BadRequest, "float32"),
    ({"z": X}, {}, BadRequest, "unknown z"),
    (X, {"target": 5}, BadRequest, "out of range"),
    (X, {"target": -1}, BadRequest, "out of range"),
    (X, {"target": [1, 2]}, BadRequest, "2 targets for 3 rows"),
    (X, {"target": [1]}, BadRequest, "1 targets for 3 rows"),
    (X, {"method": "integrated_gradient"}, NotFound, "nearest: integrated_gradients"),
    (X, {"method": "integrated_gradients", "n_step": 5}, BadRequest, "nearest: n_steps"),
    (X, {"method": "integrated_gradients", "n_steps": 10**9}, BadRequest, "the most is"),
    (X, {"method": "integrated_gradients", "n_steps": "many"}, BadRequest, "whole number"),
    (X, {"method": "integrated_gradients", "baseline": np.zeros((1, 4), np.float32)}, BadRequest, "baseline"),
    (X, {"method": "smoothgrad", "n_samples": 100_000, "base": "integrated_gradients"}, LimitExceeded, "rows"),
    (X, {"method": "smoothgrad", "noise_scale": float("nan")}, BadRequest, "finite"),
    (X, {"method": "grad_cam", "layer": "rel"}, NotFound, "nearest: relu"),
    (X, {"output": "z"}, NotFound, "available: y"),
    (np.zeros((700, 3, 12, 12), np.float32), {}, LimitExceeded, "larger than max"),
]


@pytest.mark.parametrize(("x", "call", "error", "text"), BAD)
def test_a_bad_request_is_one_clear_error_here_and_there(
    client: Client,
    here: dict[str, onnxplain.Model],
    x: Any,
    call: dict[str, Any],
    error: type[OnnxplainError],
    text: str,
) -> None:
    with pytest.raises(error, match=text) as served:
        client.model("cnn").explain(x, **call)
    if error is not LimitExceeded:
        with pytest.raises(error) as local:
            here["cnn"].explain(x, **call)
        assert str(served.value) == str(local.value)
    assert len(client.model("cnn").explain(X).scores) == 3, "the server goes on"


LONG: dict[str, Any] = {"method": "smoothgrad", "n_samples": 50_000, "base": "integrated_gradients", "n_steps": 10}
"""Half a million rows: longer than any test waits, unless it is stopped."""


STOPPED = r"call=Explain .*code=(CANCELLED|DEADLINE_EXCEEDED)"


def stopped(server: Process) -> int:
    """Requests that the server stopped so far."""
    return len(re.findall(STOPPED, server.log))


def test_a_deadline_stops_the_work(server: Process, client: Client) -> None:
    before = stopped(server)
    with pytest.raises(DeadlineExceeded):
        client.model("cnn").explain(X[:1], timeout=0.5, **LONG)
    server.logged(STOPPED, before + 1)
    assert len(client.model("cnn").explain(X).scores) == 3


def test_a_client_that_vanishes_stops_the_work(server: Process) -> None:
    before = stopped(server)
    program = f"""
import numpy as np, threading, time, os
from onnxplain.client import Client
call = Client({server.address!r}).model("cnn").explain
threading.Thread(target=call, args=(np.ones((1, 3, 12, 12), np.float32),), kwargs={LONG!r}, daemon=True).start()
time.sleep(1.0)
os._exit(7)  # no goodbye
"""
    gone = subprocess.run([sys.executable, "-c", program], env=server.environment, timeout=PATIENCE)
    assert gone.returncode == 7
    server.logged(STOPPED, before + 1)
    with server.client() as client:
        assert len(client.model("cnn").explain(X).scores) == 3


def test_sigterm_under_load_loses_nothing(folder: Path, cache: Path, here: dict[str, onnxplain.Model]) -> None:
    server = Process(folder, cache)
    answered: list[tuple[int, Explanation]] = []
    refused: list[Unavailable] = []
    loaded = threading.Semaphore(0)

    def loop(client: Client, k: int) -> None:
        model, method, target, options = REQUESTS[k % len(REQUESTS)]
        while not refused:
            try:
                answered.append((k, client.model(model).explain(inputs(model), method, target, **options)))
            except Unavailable as error:
                refused.append(error)
            loaded.release()

    try:
        with server.client() as client, ThreadPoolExecutor(32) as pool:
            loops = [pool.submit(loop, client, k) for k in range(32)]
            for _ in range(64):
                assert loaded.acquire(timeout=PATIENCE)
            assert server.end() == 0
            for each in loops:
                each.result(PATIENCE)  # any other error than a refusal is raised here
    finally:
        server.kill()
    ends = [line for line in server.lines if "call=Explain" in line and "code=UNAVAILABLE" not in line]
    assert len(ends) == len(answered), "every request that the server accepted was answered"
    assert all("code=OK" in line for line in ends)
    for k, served in answered[-32:]:
        model, method, target, options = REQUESTS[k % len(REQUESTS)]
        same(served, here[model].explain(inputs(model), method, target, **{**options, "seed": served.seed}))


def test_sigint_while_loading_ends_cleanly(folder: Path, cache: Path) -> None:
    server = Process(folder, cache / "empty")
    try:
        server.logged("converting cnn.onnx")
        assert server.end(signal.SIGINT) == 0
        assert "Traceback" not in server.log
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--strict"], "Error: model 'broken': broken.onnx: not an ONNX model"),
        (["--port", "{port}"], "Error: cannot listen on 127.0.0.1:{port}: the port is in use"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    folder: Path, cache: Path, server: Process, options: list[str], text: str
) -> None:
    port = server.address.split(":")[1]
    failing = Process(folder, cache, *(option.format(port=port) for option in options))
    try:
        assert failing.ended() != 0
        assert text.format(port=port) in failing.log
        assert "Traceback" not in failing.log
    finally:
        failing.kill()


def test_the_client_needs_no_onnxruntime(server: Process) -> None:
    program = f"""
import sys
sys.modules["onnxruntime"] = None  # importing it now fails
import numpy as np
from onnxplain import Client, errors
with Client({server.address!r}) as client:
    print(client.model("mlp").explain(np.ones((2, 7), np.float32), "integrated_gradients").scores.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.strip() == "(2,)", done.stderr
