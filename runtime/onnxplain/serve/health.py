"""grpc.health.v1, with watchers that do not hold up the drain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from onnxplain.v1 import SERVICE

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def model_service(name: str) -> str:
    """The name under which health is asked for one model; "/" cannot be part of a model's name."""
    return f"{SERVICE}/{name}"


class Health(health.HealthServicer):  # type: ignore[misc]  # grpc is not typed
    """Says NOT_SERVING until `ready`.

    At the drain its watchers are told and then let go: a stream that never ends would make the server wait for its
    whole grace period.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watching: set[grpc.ServicerContext] = set()
        self._guard = threading.Lock()
        for service in ("", SERVICE):
            self.set(service, NOT_SERVING)

    def ready(self) -> None:
        """The server as a whole serves."""
        for service in ("", SERVICE):
            self.set(service, SERVING)

    def model(self, name: str, serving: bool) -> None:
        """One model serves, or is being loaded or broken."""
        self.set(model_service(name), SERVING if serving else NOT_SERVING)

    def drain(self) -> None:
        """NOT_SERVING for good."""
        self.enter_graceful_shutdown()

    def release(self) -> None:
        """End the streams of all watchers; they have heard of the drain."""
        with self._guard:
            watching = list(self._watching)
        for context in watching:
            context.cancel()

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[[Any], None] | None = None,
    ) -> Any:
        """As in the base class; remembers who watches."""
        with self._guard:
            self._watching.add(context)

        def gone() -> None:
            with self._guard:
                self._watching.discard(context)

        if not context.add_callback(gone):
            gone()
        return super().Watch(request, context, send_response_callback)
