"""A server of one's own for the length of the demo: a process of its own, on loopback, gone at the end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxplain.client import Client
from onnxplain.errors import Unavailable

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@contextmanager
def serving(models: Path, log: Path, provider: str = "cpu") -> Iterator[str]:
    """Start ``onnxplain serve`` on a folder, wait until its health is SERVING, yield its address, stop it by SIGTERM.

    Raises Unavailable with the end of its log where it does not come up.
    """
    address = f"127.0.0.1:{_free_port()}"
    host, port = address.split(":")
    command = [sys.executable, "-m", "onnxplain", "serve", str(models), "--host", host, "--port", port]
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen([*command, "--provider", provider], stdout=written, stderr=subprocess.STDOUT)
    try:
        _wait(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        # A new connection at each try: a refused one would wait longer and longer before it tries again.
        with Client(address) as client, contextlib.suppress(Unavailable):
            client.wait_until_ready(0.5)
            return
    how = "was not ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise Unavailable(f"the server at {address} {how}: {_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " / ".join(lines[-5:]) or "it wrote nothing"
