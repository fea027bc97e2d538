"""What a server does around one explanation: fields, refusals, limits, cancellation. The model is a fake."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from onnxplain.client import Client
from onnxplain.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    LimitExceeded,
    NotFound,
    OnnxplainError,
    Unavailable,
)
from onnxplain.serve.limits import Limits
from onnxplain.serve.status import LONGEST
from onnxplain.v1 import ERROR_KEY, codec
from onnxplain.v1 import explain_pb2 as pb
from onnxplain.v1.explain_pb2_grpc import ExplainerStub
from tests.serve.conftest import QUICK, Serving
from tests.serve.fakes import PATIENCE, FakeModel
from tests.serve.probes import channel_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Check = health_pb2.HealthCheckResponse


def whole(number: int) -> pb.Value:
    return pb.Value(int_value=number)


def test_every_field_of_an_explanation_comes_back_the_same(serving: Serving) -> None:
    model = FakeModel(2.0)
    _, client = serving(net=model)
    options: dict[str, Any] = {
        "n_steps": 7,
        "baseline": np.ones((1, 3), np.float32),
        "multiply_by_inputs": True,
        "tolerance": None,
        "seed": 2**64 - 1,
        "output": "y",
    }
    came = client.model("net").explain(X, method="integrated_gradients", target=[3, (0, 1)], **options)
    asked, model.asked = model.asked, {}
    here = model.explain(X, "integrated_gradients", [3, (0, 1)], **options)
    np.testing.assert_equal(asked, model.asked)
    for name, value in vars(here).items():
        np.testing.assert_equal(getattr(came, name), value, err_msg=name)
    assert came.attributions["x"].flags.writeable


def test_an_input_goes_by_its_name_too(serving: Serving) -> None:
    _, client = serving(net=FakeModel())
    np.testing.assert_array_equal(client.model("net").explain({"x": X}).attributions["x"], X)


def test_only_the_asked_for_fields_are_sent(serving: Serving) -> None:
    server, _ = serving(net=FakeModel())
    with channel_of(server) as channel:
        request = pb.ExplainRequest(model="net", inputs={"": codec.tensor(X)}, fields=["scores", "n_rows"])
        answer = ExplainerStub(channel).Explain(request)
    assert {field.name for field, _ in answer.ListFields()} == {"scores", "n_rows"}


def test_models_are_listed_and_described(serving: Serving) -> None:
    _, client = serving(net=FakeModel(), other=FakeModel(manifest=FakeModel().manifest))
    assert [(m.name, m.state, m.digest) for m in client.models()] == [("net", "ready", "d1"), ("other", "ready", "d1")]
    about = client.model("net").describe()
    assert (about.name, about.digest, about.rows, list(about.labels)) == ("net", "d1", "independent", list("abcd"))
    assert [(dim.symbol, dim.size) for dim in about.inputs[0].shape] == [("n", 0), ("", 3)]
    assert [(layer.name, layer.op) for layer in about.layers] == [("dense", "Gemm"), ("unknown", "Custom")]
    methods = {method.name: {option.name: option for option in method.options} for method in about.methods}
    assert codec.item(methods["integrated_gradients"]["n_steps"].default, "") == 50
    assert "guided_backprop" not in methods, "the fake's manifest has the rule set gradient only"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": "nett"}, NotFound, "no model 'nett'; nearest: net"),
        ({"model": "../net"}, NotFound, "no model '../net'"),
        ({"model": ""}, NotFound, "no model ''"),
        ({"inputs": {}}, BadRequest, "inputs: empty"),
        ({"inputs": {"": codec.tensor(X), "x": codec.tensor(X)}}, BadRequest, "only input"),
        ({"inputs": {"x": pb.Tensor(dtype="float32", shape=[9], data=b"1")}}, BadRequest, "takes 36 bytes, got 1"),
        ({"inputs": {"x": codec.tensor(np.ones((2, 4), np.float32))}}, BadRequest, "shape"),
        (
            {"method": "smoothgrad", "options": {"n_samples": whole(501)}},
            LimitExceeded,
            "1002 rows to evaluate (2 rows of",
        ),
        ({"method": "integrated_gradients", "options": {"n_steps": whole(10**9)}}, BadRequest, "the most is 10000"),
        ({"method": "smothgrad"}, NotFound, "nearest: smoothgrad"),
        ({"method": "smoothgrad", "options": {"n_sample": whole(5)}}, BadRequest, "nearest: n_samples"),
        ({"options": {"seed": pb.Value(string_value="1")}}, BadRequest, "'seed' is of type int, got str"),
        ({"options": {"output": pb.Value(tensor_value=codec.tensor(X))}}, BadRequest, "'output' is of type str"),
        ({"options": {"output": pb.Value(string_value="z")}}, NotFound, "available: y"),
        ({"target": pb.Target(class_index=1), "targets": [pb.Target()] * 2}, BadRequest, "both set"),
        ({"options": {"cancelled": whole(1)}}, BadRequest, "'cancelled' is not an option"),
        ({"options": {"target": whole(1)}}, BadRequest, "'target' is not an option"),
        ({"options": {"a b": whole(1)}}, BadRequest, "'a b' is not an option"),
        ({"fields": ["score"]}, NotFound, "nearest: scores"),
    ],
)
def test_a_bad_request_is_one_clear_status_and_the_server_goes_on(
    serving: Serving, change: dict[str, Any], error: type[OnnxplainError], text: str
) -> None:
    server, client = serving(net=FakeModel())
    request = pb.ExplainRequest(**{"model": "net", "inputs": {"x": codec.tensor(X)}, **change})
    with channel_of(server) as channel, pytest.raises(grpc.RpcError) as caught:
        ExplainerStub(channel).Explain(request)
    status: Any = caught.value
    assert status.code().name == error.code
    assert text in status.details()
    assert dict(status.trailing_metadata())[ERROR_KEY] == error.__name__
    assert len(client.model("net").explain(X).scores) == 2


@pytest.mark.parametrize("kind", [OnnxplainError, *OnnxplainError.__subclasses__()], ids=lambda kind: kind.__name__)
def test_the_client_raises_the_class_that_the_model_raised(serving: Serving, kind: type[OnnxplainError]) -> None:
    _, client = serving(net=FakeModel(fails=kind("what, where, what to do: ümläut\n100%")))
    with pytest.raises(kind) as caught:
        client.model("net").explain(X)
    assert type(caught.value) is kind
    assert str(caught.value) == "what, where, what to do: ümläut\n100%"


def test_an_unexpected_exception_tells_the_log_everything_and_the_caller_nothing(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    _, client = serving(net=FakeModel(fails=RuntimeError("/secret/path")))
    with caplog.at_level(logging.ERROR), pytest.raises(OnnxplainError) as caught:
        client.model("net").explain(X)
    assert "secret" not in str(caught.value)
    ticket = str(caught.value).split()[2].rstrip(";")
    (record,) = [record for record in caplog.records if ticket in record.getMessage()]
    assert record.exc_info is not None
    assert "/secret/path" in str(record.exc_info[1])


@pytest.mark.parametrize("letter", ["x", "ü", "%", "\n"])
def test_a_status_text_is_cut_before_it_costs_the_status(serving: Serving, letter: str) -> None:
    _, client = serving(net=FakeModel(fails=NotFound(letter * 100_000)))
    with pytest.raises(NotFound) as caught:
        client.model("net").explain(X)
    assert LONGEST // 7 <= len(str(caught.value)) <= LONGEST
    assert str(caught.value).endswith(letter + " ...")


def test_a_message_too_large_is_refused_and_the_server_goes_on(serving: Serving) -> None:
    _, client = serving(net=FakeModel())
    with pytest.raises(LimitExceeded, match="larger than max"):
        client.model("net").explain(np.zeros((100_000, 3), np.float32))
    assert len(client.model("net").explain(X).scores) == 2


def test_a_small_message_that_unpacks_to_a_large_one_is_refused(serving: Serving) -> None:
    server, client = serving(net=FakeModel())
    zeros = pb.Tensor(dtype="float32", shape=[5_000_000], data=bytes(20_000_000))
    with channel_of(server) as channel, pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        request = pb.ExplainRequest(model="net", inputs={"x": zeros})
        ExplainerStub(channel).Explain(request, compression=grpc.Compression.Gzip)
    assert len(client.model("net").explain(X).scores) == 2


def test_an_answer_too_large_is_refused_with_its_size(serving: Serving) -> None:
    _, client = serving(Limits(message_bytes=9000, rows=1000), net=FakeModel())
    with pytest.raises(LimitExceeded, match=r"the response takes \d+ bytes, at most 9000 are sent"):
        client.model("net").explain(np.zeros((520, 3), np.float32))


def test_one_request_too_many_is_refused_at_once(serving: Serving) -> None:
    model = FakeModel().shut()
    _, client = serving(net=model)
    with ThreadPoolExecutor(QUICK.concurrent) as pool:
        running = [pool.submit(client.model("net").explain, X) for _ in range(QUICK.concurrent)]
        model.wait_for(QUICK.concurrent)
        with pytest.raises(LimitExceeded, match="4 explanations are at work already"):
            client.model("net").explain(X)
        assert [m.state for m in client.models()] == ["ready"], "other calls go on"
        model.gate.set()
        assert all(len(each.result(PATIENCE).scores) == 2 for each in running)
    assert len(client.model("net").explain(X).scores) == 2


def test_a_deadline_stops_the_work(serving: Serving) -> None:
    model = FakeModel().shut()
    server, _ = serving(net=model)
    hasty = Client(f"127.0.0.1:{server.port}", timeout=0.2)
    with hasty, pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        hasty.model("net").explain(X)
    assert model.cancelled.wait(PATIENCE)


def test_a_client_that_vanishes_stops_the_work(serving: Serving) -> None:
    model = FakeModel().shut()
    server, client = serving(net=model)
    channel = channel_of(server)
    future = ExplainerStub(channel).Explain.future(pb.ExplainRequest(model="net", inputs={"": codec.tensor(X)}))
    model.wait_for(1)
    channel.close()
    assert model.cancelled.wait(PATIENCE)
    assert future.code() is grpc.StatusCode.CANCELLED
    model.gate.set()
    assert len(client.model("net").explain(X).scores) == 2


def test_a_caller_that_gives_up_stops_the_work(serving: Serving) -> None:
    model = FakeModel().shut()
    _, client = serving(net=model)
    with pytest.raises(Cancelled):
        client.model("net").explain(X, cancelled=lambda: True)
    assert model.cancelled.wait(PATIENCE)
    model.gate.set()
    assert len(client.model("net").explain(X, cancelled=lambda: False).scores) == 2


def test_a_connection_closed_under_a_call_cancels_it(serving: Serving) -> None:
    model = FakeModel().shut()
    server, _ = serving(net=model)
    client = Client(f"127.0.0.1:{server.port}")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.model("net").explain, X)
        model.wait_for(1)
        client.close()
        with pytest.raises(Cancelled):
            running.result(PATIENCE)
    assert model.cancelled.wait(PATIENCE)


def test_the_client_says_what_is_wrong_with_the_connection(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        client = Client(address, timeout=30.0)
        with pytest.raises(Unavailable, match=f"no server answers at {address}"):
            client.models()
        with pytest.raises(Unavailable, match=f"{address} is not ready after 0.1 s"):
            client.wait_until_ready(0.1)
        client.close()
        with pytest.raises(Unavailable, match="is closed"):
            client.models()
