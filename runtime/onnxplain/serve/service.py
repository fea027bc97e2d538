"""The Explainer service: each call checked, priced, handed to the model, and answered."""

from __future__ import annotations

import grpc

from onnxplain.errors import Cancelled, LimitExceeded
from onnxplain.request.options import choose
from onnxplain.serve import wire
from onnxplain.serve.limits import Admission, Limits, check_price
from onnxplain.serve.models import Models
from onnxplain.v1 import explain_pb2 as pb
from onnxplain.v1.explain_pb2_grpc import ExplainerServicer


class Explainer(ExplainerServicer):
    """Raises OnnxplainError; `status` makes statuses of them."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        self._admission = Admission(limits.concurrent)

    def Explain(self, request: pb.ExplainRequest, context: grpc.ServicerContext) -> pb.ExplainResponse:  # noqa: N802
        """See explain.proto. The work stops between two runs once the caller is gone or its deadline has passed."""
        with self._admission():
            model = self._models.get(request.model)
            call = wire.call(request)
            manifest = model.manifest
            names = {name: call.named.get(name) for name in ("output", "preset", "seed")}
            chosen = choose(manifest, call.method, call.options, **names)
            check_price(self._limits, chosen.options, call.n)
            result = model.explain(
                call.inputs,
                method=call.method,
                target=call.target,
                cancelled=lambda: not context.is_active(),
                **call.named,
                **call.options,
            )
            if not context.is_active():
                raise Cancelled("the caller went away")
            output = next(spec for spec in manifest.outputs if spec.name == result.output)
            response = wire.explanation(result, call.fields, rank=len(output.shape) - 1)
        size = response.ByteSize()
        if size > self._limits.message_bytes:
            raise LimitExceeded(
                f"the response takes {size} bytes, at most {self._limits.message_bytes} are sent:"
                " send fewer rows in a request, or ask for fewer `fields`"
            )
        return response

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:  # noqa: N802
        """See explain.proto."""
        return wire.listing(self._models)

    def DescribeModel(  # noqa: N802
        self, request: pb.DescribeModelRequest, context: grpc.ServicerContext
    ) -> pb.DescribeModelResponse:
        """See explain.proto."""
        return wire.description(request.model, self._models.get(request.model))
