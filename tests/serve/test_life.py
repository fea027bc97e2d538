"""A server from start to end: what it refuses to start with, health, broken files, the drain. Models are fakes."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from onnxplain.client import Client
from onnxplain.errors import (
    BadModel,
    BadRequest,
    Unavailable,
)
from onnxplain.serve.limits import Limits
from onnxplain.serve.server import Server
from onnxplain.v1 import SERVICE
from onnxplain.v1 import explain_pb2 as pb
from onnxplain.v1.explain_pb2_grpc import ExplainerStub
from tests.serve.conftest import QUICK, Serving
from tests.serve.fakes import PATIENCE, FakeModel
from tests.serve.probes import channel_of, health_of, until, watched

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Check = health_pb2.HealthCheckResponse


def test_health_turns_serving_only_when_every_model_is_warm(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.onnx").touch()
    steps = {"a": threading.Event(), "b": threading.Event()}

    def load(path: Path) -> FakeModel:
        assert steps[path.stem].wait(PATIENCE)
        return FakeModel()

    with Server(tmp_path, port=0, limits=QUICK, load=load) as server, channel_of(server) as channel:
        loading = threading.Thread(target=server.load)
        loading.start()
        client = Client(f"127.0.0.1:{server.port}")
        services = ("", SERVICE, f"{SERVICE}/a", f"{SERVICE}/b")
        assert [health_of(channel, each) for each in services] == [Check.NOT_SERVING] * 4
        with pytest.raises(Unavailable, match="'a' is still loading"):
            client.model("a").explain(X)
        with pytest.raises(Unavailable, match="still being loaded"):
            client.wait_until_ready(0.1)
        steps["a"].set()
        until(lambda: health_of(channel, f"{SERVICE}/a") == Check.SERVING)
        assert [health_of(channel, each) for each in ("", SERVICE, f"{SERVICE}/b")] == [Check.NOT_SERVING] * 3
        assert len(client.model("a").explain(X).scores) == 2, "a model that is ready can be used"
        steps["b"].set()
        client.wait_until_ready(PATIENCE)
        assert [health_of(channel, each) for each in services] == [Check.SERVING] * 4
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            health_of(channel, "c")
        loading.join(PATIENCE)
        client.close()


def test_reflection_names_the_services(serving: Serving) -> None:
    server, _ = serving(net=FakeModel())
    with channel_of(server) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    assert {SERVICE, "grpc.health.v1.Health"} <= {each.name for each in answer.list_services_response.service}


def test_a_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("bad", "crash", "good", "..", "sp ace"):
        (tmp_path / f"{name}.onnx").touch()
    failures = {"bad": BadModel("bad.onnx: not an ONNX model"), "crash": UnicodeDecodeError("utf-8", b"/x", 0, 1, "/x")}

    def load(path: Path) -> FakeModel:
        if path.stem in failures:
            raise failures[path.stem]
        return FakeModel()

    with Server(tmp_path, port=0, load=load) as server, Client(f"127.0.0.1:{server.port}") as client:
        server.load()
        states = {model.name: (model.state, model.reason) for model in client.models()}
        assert states["good"] == ("ready", "")
        assert states["bad"] == ("failed", "bad.onnx: not an ONNX model")
        crash = "crash.onnx: cannot be loaded (UnicodeDecodeError); the server's log has more"
        assert states["crash"] == ("failed", crash)
        assert {states[name][0] for name in ("..", "sp ace")} == {"failed"}
        with channel_of(server) as channel:
            assert [health_of(channel, s) for s in ("", f"{SERVICE}/good", f"{SERVICE}/bad")] == [1, 1, 2]
        with pytest.raises(BadModel, match=r"'bad' is not served: bad\.onnx: not an ONNX model"):
            client.model("bad").explain(X)
        assert len(client.model("good").explain(X).scores) == 2


def test_strict_ends_at_the_first_broken_file(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").touch()
    (tmp_path / "good.onnx").touch()

    def load(path: Path) -> FakeModel:
        if path.stem == "bad":
            raise BadModel("broken")
        return FakeModel()

    with Server(tmp_path, port=0, load=load, strict=True) as server, pytest.raises(BadModel, match="'bad': broken"):
        server.load()


def test_no_model_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").touch()

    def load(path: Path) -> FakeModel:
        raise BadModel("broken")

    with Server(tmp_path, port=0, load=load) as server, pytest.raises(BadModel, match=r"no model .*: bad: broken"):
        server.load()


@pytest.mark.parametrize(
    ("files", "text"),
    [(None, "no such folder"), ([], "there is no .onnx file"), (["net.onnx", "net.explain.onnx"], "both named 'net'")],
)
def test_folders_that_cannot_be_served(tmp_path: Path, files: list[str] | None, text: str) -> None:
    for name in files or []:
        (tmp_path / name).touch()
    with pytest.raises(BadRequest, match=text):
        Server(tmp_path / "none" if files is None else tmp_path, port=0)


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadRequest, match=f"127.0.0.1:{taken.getsockname()[1]}: the port is in use"):
            Server(tmp_path, port=taken.getsockname()[1])
    with Server(tmp_path, port=0) as server, pytest.raises(BadRequest, match="in use"):
        Server(tmp_path, port=server.port)


def test_the_drain_finishes_what_was_accepted_and_refuses_the_rest(serving: Serving) -> None:
    model = FakeModel().shut()
    server, client = serving(net=model)
    with channel_of(server) as channel, ThreadPoolExecutor(4) as pool:
        watch = watched(channel)
        assert next(watch).status == Check.SERVING
        running = [pool.submit(client.model("net").explain, X) for _ in range(3)]
        model.wait_for(3)
        drained: Future[bool] = pool.submit(server.drain)
        assert next(watch).status == Check.NOT_SERVING, "watchers hear of it before the port closes"
        until(lambda: _refused(server))
        assert not any(each.done() for each in running)
        assert not model.closed, "sessions are closed after the last request"
        model.gate.set()
        assert all(len(each.result(PATIENCE).scores) == 2 for each in running)
        assert drained.result(PATIENCE) is True
    assert model.closed


def test_while_it_refuses_accepted_requests_go_on(serving: Serving) -> None:
    model = FakeModel().shut()
    server, client = serving(net=model)
    with ThreadPoolExecutor(1) as pool, channel_of(server) as channel:
        running = pool.submit(client.model("net").explain, X)
        model.wait_for(1)
        server.refuse()
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            ExplainerStub(channel).ListModels(pb.ListModelsRequest())
        with pytest.raises(Unavailable, match="the server is shutting down"):
            client.model("net").explain(X)
        assert health_of(channel) == Check.SERVING, "health is asked on its own"
        model.gate.set()
        assert len(running.result(PATIENCE).scores) == 2


def _refused(server: Server) -> bool:
    with Client(f"127.0.0.1:{server.port}", timeout=5.0) as late:
        try:
            late.models()
        except Unavailable:
            return True
    return False


def test_a_watcher_of_health_does_not_hold_up_the_drain(serving: Serving) -> None:
    server, _ = serving(Limits(grace_seconds=3600.0), net=FakeModel())
    with channel_of(server) as channel:
        watch = watched(channel)
        next(watch)
        draining = threading.Thread(target=server.drain)
        draining.start()
        draining.join(PATIENCE)
        assert not draining.is_alive()


def test_the_grace_period_ends(serving: Serving) -> None:
    model = FakeModel().shut()
    server, client = serving(Limits(grace_seconds=0.2), net=model)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.model("net").explain, X)
        model.wait_for(1)
        assert server.drain() is False
        with pytest.raises(Unavailable, match="went away"):
            running.result(PATIENCE)
    assert model.cancelled.wait(PATIENCE), "the work was told to stop"
