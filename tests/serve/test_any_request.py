"""Whatever a request holds, it ends in one clear status: an answer, or a refusal that is the caller's to mend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxplain.methods import METHODS
from onnxplain.serve.limits import MIB, Limits
from onnxplain.serve.server import Server
from onnxplain.v1 import codec
from onnxplain.v1 import explain_pb2 as pb
from onnxplain.v1.explain_pb2_grpc import ExplainerStub
from tests.serve import nets
from tests.serve.fakes import PATIENCE
from tests.serve.probes import channel_of

GOOD = np.ones((2, 7), np.float32)
ARRAYS = (
    *(GOOD, GOOD[:1], GOOD[:0], GOOD[0], GOOD.astype(np.float16), GOOD.astype(np.float64) * 1e300),
    *(np.full_like(GOOD, np.nan), np.full_like(GOOD, 3e38), np.float32(1), np.ones(5), np.array([1, 2]), np.eye(5)),
    *(np.array([True]), np.array([]), np.zeros((1, 2**10, 0)), np.uint64(2**64 - 1)),
)
NUMBERS = st.sampled_from([0, 1, -1, 2, 4, 5, 7, 10**9, 2**63 - 1, -(2**63)])
TEXTS = st.sampled_from(
    ["", "x", "y", "top", "zero", "blur", "midpoint", "gradient", "tanh", "adebayo2018", "é" * 3000, "\0"]
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 7, -1, 2**62]), max_size=9)
TENSORS = st.sampled_from(ARRAYS).map(codec.tensor) | st.builds(
    pb.Tensor, dtype=st.sampled_from([*codec.DTYPES, "O", "V4", "<f4", ""]), shape=SHAPES, data=st.binary(max_size=64)
)
VALUES = st.recursive(
    st.builds(pb.Value)
    | st.builds(pb.Value, int_value=NUMBERS)
    | st.builds(pb.Value, double_value=st.floats())
    | st.builds(pb.Value, bool_value=st.booleans())
    | st.builds(pb.Value, string_value=TEXTS)
    | st.builds(pb.Value, tensor_value=TENSORS)
    | st.builds(pb.Value, uint_value=st.just(2**64 - 1)),
    lambda inner: (
        st.builds(pb.Value, list_value=st.builds(pb.ValueList, values=st.lists(inner, max_size=3)))
        | st.builds(pb.Value, map_value=st.builds(pb.ValueMap, values=st.dictionaries(TEXTS, inner, max_size=3)))
    ),
    max_leaves=4,
)
TARGETS = st.recursive(
    st.builds(pb.Target)
    | st.builds(pb.Target, class_index=NUMBERS)
    | st.builds(pb.Target, class_name=TEXTS)
    | st.builds(pb.Target, weighting=TENSORS)
    | st.builds(pb.Target, position=st.builds(pb.Target.Position, index=st.lists(NUMBERS, max_size=3))),
    lambda inner: st.builds(pb.Target, pair=st.builds(pb.Target.Pair, first=inner, second=inner)),
    max_leaves=4,
)
FEW = pb.Value(int_value=2)


@st.composite
def requests(draw: st.DrawFn) -> pb.ExplainRequest:
    """Mostly right: what is wrong all over is refused at the first look."""
    method = draw(st.sampled_from([*METHODS, "", "none"]))
    known = [option.name for option in METHODS[method].options] if method in METHODS else []
    names = st.sampled_from([*known, "output", "preset", "seed", "check_finite", "timeout", "unknown"])
    right = st.just({"x": codec.tensor(GOOD)})
    request = pb.ExplainRequest(
        model="mlp",
        method=method,
        inputs=draw(right | right | st.dictionaries(TEXTS, TENSORS, max_size=2)),
        options=draw(st.dictionaries(names, VALUES, max_size=2)),
        targets=draw(st.just([]) | st.just([]) | st.lists(TARGETS, max_size=3)),
        target=draw(st.none() | TARGETS),
    )
    if "n_samples" in known and "n_samples" not in request.options:
        request.options["n_samples"].CopyFrom(FEW)
    return request


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """To a server with a real model."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(nets.smooth(), folder / "mlp.onnx")
    with Server(folder, port=0, limits=Limits(rows=2000, message_bytes=MIB)) as server, channel_of(server) as channel:
        server.load()
        yield channel


REFUSALS = ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")


@settings(deadline=None, max_examples=600, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(requests())
def test_any_request_is_answered_or_refused(channel: grpc.Channel, request: pb.ExplainRequest) -> None:
    try:
        answer = ExplainerStub(channel).Explain(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        status: Any = error
        assert status.code().name in REFUSALS, status.details()
        assert status.details()
    else:
        maps = codec.array(answer.attributions["x"], "attributions")
        assert maps.shape == codec.array(next(iter(request.inputs.values())), "x").shape


@settings(deadline=None, max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(channel: grpc.Channel, content: bytes) -> None:
    explain = channel.unary_unary("/onnxplain.v1.Explainer/Explain")
    with pytest.raises(grpc.RpcError) as caught:
        explain(content, timeout=PATIENCE)
    status: Any = caught.value
    unreadable = status.code() is grpc.StatusCode.INTERNAL and status.details() == "Exception deserializing request!"
    assert unreadable or status.code().name in REFUSALS
