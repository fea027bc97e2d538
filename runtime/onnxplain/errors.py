"""Every error that onnxplain raises on purpose, one class per *reaction of the caller*.

A message says what is wrong, where (node, operator, opset, field), what was available, and what to do.
Each class carries the name of the gRPC status that the server answers with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnnxplainError(Exception):
    """Base of all errors raised on purpose. ``code`` is the name of a gRPC status code."""

    code = "INTERNAL"


class BadRequest(OnnxplainError):
    """The call itself is wrong (shape, dtype, range, option): change the call."""

    code = "INVALID_ARGUMENT"


class NotFound(OnnxplainError):
    """A name (model, method, layer, output) that does not exist: take one of those listed."""

    code = "NOT_FOUND"


class BadModel(OnnxplainError):
    """The file cannot be read as a model: broken, truncated, unsafe. Mend the file."""

    code = "INVALID_ARGUMENT"


class Unsupported(OnnxplainError):
    """The model is valid but something in it has no derivative or no rule yet."""

    code = "UNIMPLEMENTED"


class ProviderUnavailable(OnnxplainError):
    """The asked-for device or package is not usable here: install or choose another."""

    code = "FAILED_PRECONDITION"


class LimitExceeded(OnnxplainError):
    """More rows, bytes or memory than this process allows: ask for less or raise the limit."""

    code = "RESOURCE_EXHAUSTED"


class Cancelled(OnnxplainError):
    """The caller went away; nothing to do."""

    code = "CANCELLED"


class DeadlineExceeded(OnnxplainError):
    """The caller's deadline passed before the work was done."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(OnnxplainError):
    """The server is starting or draining: try again, elsewhere or later."""

    code = "UNAVAILABLE"


def nearest(name: str, available: Iterable[str], most: int = 5) -> str:
    """A sentence for an unknown name: the nearest of ``available``, else the first few of them."""
    names = sorted(set(available))
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.5)
    if close:
        return f"nearest: {', '.join(close)}"
    if not names:
        return "there are none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"available: {', '.join(names[:most])}{more}"
