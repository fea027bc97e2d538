"""Servers for tests: on loopback only, on a free port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from onnxplain.client import Client
from onnxplain.serve.limits import Limits
from onnxplain.serve.server import Server
from tests.serve.fakes import FakeModel

QUICK = Limits(grace_seconds=20.0, concurrent=4, rows=1000, message_bytes=2**20)

Serving = Callable[..., tuple[Server, Client]]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """serving(net=FakeModel(), ...) -> (server that has loaded them, client)."""
    with ExitStack() as stack:

        def start(limits: Limits = QUICK, **models: FakeModel) -> tuple[Server, Client]:
            folder = tmp_path / f"models{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            for name in models:
                (folder / f"{name}.onnx").touch()
            server = Server(folder, port=0, limits=limits, load=lambda path: models[path.stem])
            stack.enter_context(server)
            for model in models.values():
                stack.callback(model.gate.set)  # before the drain, so that nothing waits there
            server.load()
            client = stack.enter_context(Client(f"127.0.0.1:{server.port}", timeout=60.0))
            return server, client

        yield start
