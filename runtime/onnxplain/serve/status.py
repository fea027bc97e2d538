"""Errors become gRPC statuses here and nowhere else."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import grpc

from onnxplain.errors import Cancelled, OnnxplainError, Unavailable
from onnxplain.v1 import ERROR_KEY

log = logging.getLogger(__name__)

Handler = Callable[[Any, grpc.ServicerContext], Any]

LONGEST = 4000
"""Bytes of a status text on the wire: from 8 KiB of headers on the status itself gets lost."""

_SENT_AS_THEY_ARE = "".join(map(chr, range(32, 127))).replace("%", "")


class Statuses(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc is not typed
    """Answers every error of a call of ``service`` with one status, and logs every call in one line.

    An OnnxplainError gives the status of its `code`, its message, and its class name in the trailing metadata. Anything
    else is INTERNAL with an id that stands in the server's log beside the traceback, and says nothing of this machine.
    """

    def __init__(self, service: str, refusing: Callable[[], bool]) -> None:
        """While ``refusing`` every call of ``service`` is answered UNAVAILABLE."""
        self._prefix = f"/{service}/"
        self._refusing = refusing

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Wraps the handlers of the one service, all of which are unary."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or not method.startswith(self._prefix):
            return handler
        name = method.removeprefix(self._prefix)
        return grpc.unary_unary_rpc_method_handler(
            _answering(name, _unless(self._refusing, handler.unary_unary)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _unless(refusing: Callable[[], bool], call: Handler) -> Handler:
    def unless_refusing(request: Any, context: grpc.ServicerContext) -> Any:
        if refusing():
            raise Unavailable("the server is shutting down: try another one, or again later")
        return call(request, context)

    return unless_refusing


def _answering(name: str, call: Handler) -> Handler:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        begin = time.monotonic()
        # As the caller wrote them, so cut; repr keeps line breaks out of the log.
        given = "".join(
            f" {key}={getattr(request, key)[:128]!r}" for key in ("model", "method") if hasattr(request, key)
        )
        try:
            response = call(request, context)
        except OnnxplainError as error:
            level = logging.INFO if isinstance(error, Cancelled) else logging.WARNING
            took, text = time.monotonic() - begin, str(error)
            log.log(level, "call=%s%s code=%s seconds=%.4f error=%r", name, given, error.code, took, text)
            _abort(context, error.code, text, type(error).__name__)
        except Exception:
            ticket = uuid.uuid4().hex[:12]
            log.exception("call=%s%s code=INTERNAL id=%s", name, given, ticket)
            text = f"internal error {ticket}; the server's log has it under that id"
            _abort(context, "INTERNAL", text, OnnxplainError.__name__)
        log.info("call=%s%s code=OK seconds=%.4f", name, given, time.monotonic() - begin)
        return response

    return answer


def _abort(context: grpc.ServicerContext, code: str, text: str, kind: str) -> NoReturn:
    context.set_trailing_metadata(((ERROR_KEY, kind),))
    context.abort(grpc.StatusCode[code], shortened(text))
    raise AssertionError("abort always raises")


def shortened(text: str) -> str:
    """``text`` cut so that percent-encoded, as gRPC sends it, it takes at most LONGEST bytes."""
    sent = quote(text, safe=_SENT_AS_THEY_ARE)
    if len(sent) <= LONGEST:
        return text
    cut = sent[: LONGEST - 4]
    escape = cut.rfind("%", -2)
    return unquote(cut if escape < 0 else cut[:escape], errors="ignore") + " ..."
