"""A server of one folder as its own process, for as long as a benchmark needs it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxplain import Client


@contextmanager
def serving(folder: Path, provider: str = "cpu") -> Iterator[Client]:
    """A client of ``onnxplain serve folder`` on a free port of this machine, ready to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "onnxplain", "serve", str(folder), "--port", str(port), "--provider", provider]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with Client(f"127.0.0.1:{port}", timeout=600) as client:
            client.wait_until_ready(300)
            yield client
    finally:
        process.terminate()
        process.wait(60)
