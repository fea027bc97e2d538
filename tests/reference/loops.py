"""Loop as ONNX defines it: onnx's own stacks scalars as rows of a column, and matrices on top of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_loop import Loop as OnnxLoop


class Loop(OnnxLoop):
    body: Any
    _run_body: Any

    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        trips: Any,
        cond: Any,
        *carried: Any,
        context: dict[str, Any] | None = None,
        body: Any = None,  # the same as self.body
        attributes: Any = None,
        bindings: Any = None,
    ) -> tuple[Any, ...]:
        going = True if cond is None else cond
        scanned: list[list[Any]] = [[] for _ in range(self.K)]
        i = 0
        while going and (trips is None or i < trips):
            given = (np.asarray(i, np.int64), np.asarray(going), *carried)
            feeds = {**(context or {}), **dict(zip(self.body.input_names, given, strict=True))}
            going, *made = self._run_body(feeds, attributes=attributes, bindings=bindings)
            carried = tuple(made[: self.N])
            for values, value in zip(scanned, made[self.N :], strict=True):
                values.append(value)
            i += 1
        stacked = (np.stack(values) if values else np.empty(0) for values in scanned)
        result: tuple[Any, ...] = self._check_and_fix_outputs((*carried, *stacked))
        return result
