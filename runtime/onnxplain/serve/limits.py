"""What one request and one server may take, and what a request costs before any work is done for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import BadRequest, LimitExceeded

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds of one server; every one has a clear refusal."""

    message_bytes: int = 64 * MIB
    """Of one request and of one response."""
    rows: int = 100_000
    """Points that one request may have evaluated: rows of the input x n_steps x n_samples."""
    concurrent: int = 64
    """Explanations at work at a time; one more is refused at once."""
    grace_seconds: float = 30.0
    """How long accepted requests may go on after SIGTERM."""
    lame_duck_seconds: float = 0.0
    """Between health saying NOT_SERVING and the port closing: the time a load balancer takes to notice."""
    convert_seconds: float = 600.0
    """For converting one plain ONNX file at start."""
    convert_bytes: int = 16 * 1024 * MIB
    """Address space of the process that converts it."""


def check_price(limits: Limits, options: Mapping[str, Any], n: int) -> None:
    """Raises LimitExceeded where ``n`` rows of input under these resolved options take more rows than are allowed."""
    factors = {name: options[name] for name in ("n_steps", "n_samples") if name in options}
    each = math.prod(factors.values())
    if options.get("tolerance") is not None:
        factors["max_rows"] = options["max_rows"]
        each = max(each, options["max_rows"])
    if n * each > limits.rows:
        asked = ", ".join([f"{n} rows of input", *(f"{name}={value}" for name, value in factors.items())])
        raise LimitExceeded(
            f"{n * each} rows to evaluate ({asked}); this server takes at most {limits.rows} per request:"
            " ask for fewer steps or samples, or send the rows of the input in several requests"
        )


class Admission:
    """How many requests are at work; refuses beyond a bound, and refuses all while the server starts or drains."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise BadRequest(f"at least one concurrent request must be allowed, got {most}")
        self._most = most
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        return self._running

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._running >= self._most:
                raise LimitExceeded(f"{self._most} explanations are at work already: try again a little later")
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
