"""Sessions whose runs a test can hold, fail and watch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxplain.engine.session import Array, OrtSession, open_session
from onnxplain.errors import Cancelled


class Gate:
    """Opens ONNX Runtime sessions that wait at ``open`` before each run and ask ``trouble`` what to raise."""

    def __init__(self, trouble: Callable[[Mapping[str, Any]], None] = lambda feeds: None) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.trouble = trouble
        self.sizes: list[int] = []
        self.requests: list[int] = []
        self.stopped = 0
        self.sessions = 0

    def hold(self) -> None:
        self.open.clear()

    def wait_for_a_run(self) -> None:
        assert self.entered.acquire(timeout=30)

    def __call__(self, model: bytes, weights: Mapping[str, Array], provider: str) -> GatedSession:
        self.sessions += 1
        return GatedSession(open_session(model, weights, provider, threads=1), self)


class GatedSession:
    """One session of a gate."""

    provider = "cpu"

    def __init__(self, inner: OrtSession, gate: Gate) -> None:
        self.inner, self.gate, self.stopping = inner, gate, threading.Event()

    def put(self, array: Array) -> Any:
        return self.inner.put(array)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str], keep: Sequence[str] = ()) -> dict[str, Any]:
        self.gate.sizes.append(len(feeds["row/request"]))
        self.gate.requests.append(len(set(feeds["row/request"].tolist())))
        self.gate.entered.release()
        while not self.gate.open.wait(0.01):
            if self.stopping.is_set():
                self.stopping.clear()
                raise Cancelled("stopped")
        self.gate.trouble(feeds)
        return self.inner.run(feeds, outputs, keep)

    def stop(self) -> None:
        self.gate.stopped += 1
        self.stopping.set()
