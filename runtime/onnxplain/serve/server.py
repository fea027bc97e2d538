"""One server from start to end: bind, load and warm up, serve, drain."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onnxplain.engine import Scheduler
from onnxplain.engine.session import resolve_provider
from onnxplain.errors import BadModel, BadRequest
from onnxplain.serve.health import Health
from onnxplain.serve.limits import Limits
from onnxplain.serve.load import load_and_warm_up
from onnxplain.serve.models import Entry, Load, Models, State, find
from onnxplain.serve.service import Explainer
from onnxplain.serve.status import Statuses
from onnxplain.v1 import SERVICE
from onnxplain.v1.explain_pb2_grpc import add_ExplainerServicer_to_server

log = logging.getLogger(__name__)

REFUSING_SECONDS = 0.2
"""Between the first refusal and the closing of the port: what is on its way then is told to go elsewhere."""

SPARE_THREADS = 16
"""Beyond those that explain: health checks and refusals must not wait behind explanations."""


class Server:
    """Life: `Server(...)` binds the port, `load()` ends with health SERVING, `drain()` with everything closed."""

    def __init__(
        self,
        folder: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8001,
        provider: str = "auto",
        limits: Limits | None = None,
        strict: bool = False,
        load: Load | None = None,
    ) -> None:
        """Raises BadRequest where the folder is none, holds no model or one name twice, or the port is taken, and
        ProviderUnavailable.

        Port 0 takes a free one; `port` says which. With ``strict`` a broken file ends `load` with BadModel. ``load``
        makes a warm model of a file, by default `load.load_and_warm_up`.
        """
        self.limits = limits or Limits()
        self._strict = strict
        self._refusing = threading.Event()
        self._stopping = threading.Event()
        if load is None:
            resolve_provider(provider)  # an unusable one shows now, not after every model was converted
        self.models = Models(find(folder))
        self.health = Health()
        for entry in self.models:
            self.health.model(entry.name, False)
        self._grpc = _grpc_server(self.limits, self._refusing.is_set)
        add_ExplainerServicer_to_server(Explainer(self.models, self.limits), self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._grpc)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)
        self.port = _bound(self._grpc, host, port)
        self._scheduler = Scheduler()
        self._load = load or partial(
            load_and_warm_up,
            provider=provider,
            scheduler=self._scheduler,
            limits=self.limits,
            stop=self._stopping.is_set,
        )
        self._grpc.start()
        log.info("listening on %s:%d", host, self.port)

    def load(self) -> None:
        """Load and warm up every model; health then says SERVING. Raises BadModel where none can be served."""

        def loaded(entry: Entry) -> None:
            self.health.model(entry.name, entry.state is State.READY)
            if self._strict and entry.state is State.FAILED:
                raise BadModel(f"model {entry.name!r}: {entry.reason}")

        self.models.load(self._load, self._stopping.is_set, loaded)
        if self._stopping.is_set():
            return
        failed = [entry for entry in self.models if entry.state is State.FAILED]
        ready = [entry.name for entry in self.models if entry.state is State.READY]
        if not ready:
            raise BadModel("no model can be served: " + "; ".join(f"{entry.name}: {entry.reason}" for entry in failed))
        self.health.ready()
        log.info("serving %s", ", ".join(ready))
        if failed:
            log.warning("not serving %s", ", ".join(entry.name for entry in failed))

    def stop(self) -> None:
        """Ask for the drain; from any thread or signal handler, at once."""
        self._stopping.set()

    def wait(self) -> None:
        """Until `stop`."""
        self._stopping.wait()

    def refuse(self) -> None:
        """From now on new requests are answered UNAVAILABLE; accepted ones go on."""
        self._refusing.set()

    def drain(self) -> bool:
        """Refuse new requests, finish the accepted ones, close. False where the grace period cut some off."""
        self._stopping.set()
        log.info("draining")
        self.health.drain()
        if self.limits.lame_duck_seconds:
            time.sleep(self.limits.lame_duck_seconds)
        self.refuse()
        # gRPC ends calls that it has received but not yet handed over as CANCELLED, which callers do not try again.
        time.sleep(REFUSING_SECONDS)
        begin = time.monotonic()
        done = self._grpc.stop(self.limits.grace_seconds)
        self.health.release()
        done.wait()
        finished = time.monotonic() - begin < self.limits.grace_seconds
        # Sessions are closed last: a request that was cut off may still be between two runs.
        self.models.close()
        self._scheduler.close()
        log.info("stopped%s", "" if finished else ": the grace period ended before all requests did")
        return finished

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.drain()


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    provider: str = "auto",
    limits: Limits | None = None,
    strict: bool = False,
) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the exit code 0; a second signal ends the process at once.

    For the main thread of a process. Raises what `Server` and `Server.load` raise.
    """
    with Server(folder, host=host, port=port, provider=provider, limits=limits, strict=strict) as server:

        def stop(number: int, frame: FrameType | None) -> None:
            server.stop()
            signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        server.load()
        server.wait()
    return 0


def _grpc_server(limits: Limits, refusing: Callable[[], bool]) -> grpc.Server:
    # Threads and not asyncio: an explanation is a blocking call into ONNX Runtime, which needs a thread either way, and
    # a large message that is being parsed then holds up one thread instead of every call of the server.
    return grpc.server(
        ThreadPoolExecutor(limits.concurrent + SPARE_THREADS, thread_name_prefix="grpc"),
        interceptors=[Statuses(SERVICE, refusing)],
        options=[
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.max_send_message_length", limits.message_bytes),
            # A second server on the port must fail instead of taking half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", 10_000),
            # Clients that keep an idle connection alive with a ping a minute are welcome.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 60_000),
        ],
    )


def _bound(server: grpc.Server, host: str, port: int) -> int:
    try:
        return int(server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    except RuntimeError as error:
        raise BadRequest(
            f"cannot listen on {host}:{port}: the port is in use or the address is not of this machine;"
            " stop the other server or choose another --port (0 takes a free one)"
        ) from error
