"""The same call as `Model.explain`, over gRPC: same arguments, same result, same errors. Needs no ONNX Runtime.

with Client("localhost:8001") as client:
    e = client.model("net").explain(x, method="integrated_gradients", n_steps=50)
    e.attributions["input"], e.scores
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onnxplain import errors
from onnxplain.errors import OnnxplainError
from onnxplain.explanation import Explanation
from onnxplain.v1 import ERROR_KEY, codec
from onnxplain.v1 import explain_pb2 as pb
from onnxplain.v1.explain_pb2_grpc import ExplainerStub

POLL_SECONDS = 0.05
"""Between two questions whether the caller still wants its answer."""

BY_CODE: dict[str, type[OnnxplainError]] = {
    kind.code: kind
    for kind in (
        errors.BadRequest,
        errors.NotFound,
        errors.Unsupported,
        errors.ProviderUnavailable,
        errors.LimitExceeded,
    )
}
"""What a status means that did not come from onnxplain itself but from gRPC or something in between."""


@dataclass(frozen=True)
class Served:
    """One model of a server: ``state`` is "loading", "ready" or "failed", ``reason`` why it failed."""

    name: str
    state: str
    digest: str
    reason: str


class Client:
    """A connection to one server. Thread-safe; one is enough for any number of threads."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 300.0,
        credentials: grpc.ChannelCredentials | None = None,
        message_bytes: int = 2**31 - 1,
    ) -> None:
        """``address`` is "host:port". ``timeout`` in seconds is the deadline of every call, which stops the server's
        work too; None waits for ever. ``credentials`` for TLS. ``message_bytes`` is the largest answer that is taken.

        Connects at the first call, not here.
        """
        options = [("grpc.max_receive_message_length", message_bytes), ("grpc.max_send_message_length", -1)]
        self.address = address
        self.timeout = timeout
        self._closed = False
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._stub = ExplainerStub(self._channel)

    def model(self, name: str) -> RemoteModel:
        """The model of that name on the server. Asks nothing yet: an unknown name shows at the first call."""
        return RemoteModel(self, name)

    def models(self) -> tuple[Served, ...]:
        """What the server serves, and what it could not load and why."""
        answer = self._call(self._stub.ListModels, pb.ListModelsRequest())
        state = pb.ModelStatus.State.Name
        return tuple(Served(m.name, state(m.state).lower(), m.digest, m.reason) for m in answer.models)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Until the server has loaded and warmed up its models. Raises Unavailable after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        said = "nothing answers there"
        while (left := end - time.monotonic()) > 0:
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=left, wait_for_ready=True)
            except grpc.RpcError as error:
                said = f"{error.code().name}: {error.details()}"
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                said = "its models are still being loaded"
            time.sleep(min(0.05, max(end - time.monotonic(), 0.0)))
        raise errors.Unavailable(f"{self.address} is not ready after {timeout:g} s: {said}")

    def close(self) -> None:
        """Close the connection; calls that are under way end as Cancelled."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self, method: Any, request: Any, timeout: float | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Any:
        timeout = self.timeout if timeout is None else timeout
        try:
            if cancelled is None:
                return method(request, timeout=timeout)
            return _polled(method.future(request, timeout=timeout), cancelled)
        except grpc.RpcError as error:
            raise self._error(error, timeout) from None
        except grpc.FutureCancelledError:
            raise errors.Cancelled("the caller gave up") from None
        except ValueError as error:
            # grpcio's own words for a closed channel.
            raise errors.Unavailable(f"the connection to {self.address} is closed: make a new Client") from error

    def _error(self, error: Any, timeout: float | None) -> OnnxplainError:
        code, text = error.code().name, error.details() or ""
        named = [value for key, value in error.trailing_metadata() or () if key == ERROR_KEY]
        kind = getattr(errors, str(named[0]), None) if named else None
        if isinstance(kind, type) and issubclass(kind, OnnxplainError):
            return kind(text)
        if code == "DEADLINE_EXCEEDED":
            return errors.DeadlineExceeded(
                f"no answer from {self.address} within {timeout} s: ask for less, or wait longer"
                " with Client(..., timeout=)"
            )
        if code == "CANCELLED" and self._closed:
            return errors.Cancelled("the connection was closed while the call was under way")
        # A server that begins to drain ends calls that have arrived but were not yet accepted as CANCELLED.
        if code in ("UNAVAILABLE", "CANCELLED"):
            return errors.Unavailable(f"no server answers at {self.address}, or it went away ({text})")
        return BY_CODE.get(code, OnnxplainError)(f"{self.address}: {code}: {text}")


class RemoteModel:
    """One model of a server, with the interface of `onnxplain.Model`."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client

    def explain(
        self,
        x: Any,
        method: str = "gradient",
        target: Any = "top",
        *,
        cancelled: Callable[[], bool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Explanation:
        """As `onnxplain.Model.explain`: an array for a model of one input, or {input name: array}, with the row axis.

        ``timeout`` in seconds instead of the client's. Raises what `Model.explain` raises, and Unavailable,
        DeadlineExceeded or LimitExceeded where the server or the connection says so.
        """
        inputs = x if isinstance(x, Mapping) else {"": x}
        several = target if isinstance(target, list) else None
        request = pb.ExplainRequest(
            model=self.name,
            inputs={name: codec.tensor(array, f"input {name!r}") for name, array in inputs.items()},
            method=method,
            target=codec.target(target, "target") if several is None else None,
            targets=[codec.target(each, f"target[{k}]") for k, each in enumerate(several or ())],
            options={name: codec.value(value, f"option {name!r}") for name, value in options.items()},
        )
        return explanation(self._client._call(self._client._stub.Explain, request, timeout, cancelled))

    def describe(self) -> pb.DescribeModelResponse:
        """Inputs, outputs, methods with their options and defaults, layers: the message as the server sent it."""
        request = pb.DescribeModelRequest(model=self.name)
        answer: pb.DescribeModelResponse = self._client._call(self._client._stub.DescribeModel, request)
        return answer


def _polled(call: Any, cancelled: Callable[[], bool]) -> Any:
    while True:
        try:
            return call.result(POLL_SECONDS)
        except grpc.FutureTimeoutError:
            if cancelled():
                call.cancel()


def explanation(answer: pb.ExplainResponse) -> Explanation:
    """The Explanation of a response that holds all its fields."""

    return Explanation(
        attributions=_arrays(answer.attributions),
        scores=_array(answer.scores, "scores"),
        baseline_scores=_array(answer.baseline_scores, "baseline_scores")
        if answer.HasField("baseline_scores")
        else None,
        targets=[codec.target_of(message, "targets") for message in answer.targets],
        convergence_delta=_optional(answer, "convergence_delta"),
        error=_arrays(answer.error) or None,
        n_rows=answer.n_rows,
        seed=answer.seed,
        converged=_array(answer.converged, "converged"),
        warnings=list(answer.warnings),
        options={name: codec.item(value, name) for name, value in answer.options.items()},
        method=answer.method,
        model_digest=answer.model_digest,
        provider=answer.provider,
        versions=dict(answer.versions),
        output=answer.output,
        extras=_arrays(answer.extras),
    )


def _arrays(messages: Mapping[str, pb.Tensor]) -> dict[str, Any]:
    return {name: _array(message, name) for name, message in messages.items()}


def _optional(answer: Any, field: str) -> Any:
    return _array(getattr(answer, field), field) if answer.HasField(field) else None


def _array(message: pb.Tensor, where: str) -> Any:
    # A copy: what a caller gets in process can be written to, a view on a message's bytes cannot.
    return codec.array(message, where).copy()
