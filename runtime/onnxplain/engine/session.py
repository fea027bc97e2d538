"""ONNX Runtime, and nothing else of it anywhere: sessions, providers, device memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BadRequest, Cancelled, LimitExceeded, OnnxplainError, ProviderUnavailable

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]
Handle = Any
"""A tensor that stays where the session runs; opaque outside of the session that made it."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Session(Protocol):
    """One program, ready to run. One thread at a time calls ``run``; any thread may call ``stop``."""

    @property
    def provider(self) -> str: ...

    def put(self, array: Array) -> Handle:
        """Copy an array to where the session runs."""
        ...

    def run(
        self, feeds: Mapping[str, Handle | Array], outputs: Sequence[str], keep: Sequence[str] = ()
    ) -> dict[str, Handle | Array]:
        """Run; ``outputs`` come back as arrays, those of ``keep`` as handles. Raises OnnxplainError."""
        ...

    def stop(self) -> None:
        """Stop the run in progress, which raises Cancelled."""
        ...


class OpenSession(Protocol):
    """How the engine gets its sessions: ONNX Runtime's, or in tests the reference evaluator's."""

    def __call__(self, model: bytes, weights: Mapping[str, Array], provider: str) -> Session: ...


def resolve_provider(wanted: str) -> str:
    """ "cpu" or "cuda", for those and "auto". Raises ProviderUnavailable where CUDA is asked for and not installed."""
    if wanted not in ("auto", *PROVIDERS):
        raise BadRequest(f"no provider {wanted!r}; there are auto, cpu and cuda")
    has_cuda = PROVIDERS["cuda"] in _onnxruntime().get_available_providers()
    if wanted == "auto":
        return "cuda" if has_cuda and _finds_device() else "cpu"
    if wanted == "cuda" and not has_cuda:
        raise ProviderUnavailable(
            "CUDA was asked for, but the installed onnxruntime has no CUDA provider: "
            'pip uninstall onnxruntime, then pip install "onnxplain[gpu]"'
        )
    return wanted


def open_session(
    model: bytes, weights: Mapping[str, Array], provider: str, *, use_tf32: bool = False, threads: int = 0
) -> OrtSession:
    """A session for ``model``, whose external initializers are ``weights``.

    ``use_tf32`` trades three decimal digits for speed on CUDA; off, results agree with the CPU. ``threads``: of the
    CPU, 0 for all cores. Raises ProviderUnavailable where the provider is not what was asked for.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # ONNX Runtime reads from these buffers while it makes the session, so they live as long as it.
    values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    chosen: list[Any] = [PROVIDERS[provider]]
    if provider == "cuda":
        cuda = {"use_tf32": int(use_tf32), "cudnn_conv_algo_search": "HEURISTIC"}
        chosen = [(PROVIDERS["cuda"], cuda), PROVIDERS["cpu"]]
        # CUDA's libraries from their own packages (the gpu extra) are on no search path until somebody loads them.
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(model, options, providers=chosen)
    except Exception as error:
        raise _translated(error, "making a session of it") from error
    got = session.get_providers()
    if PROVIDERS[provider] not in got:
        raise ProviderUnavailable(
            f"{provider} was asked for, but ONNX Runtime fell back to {', '.join(got)}: a driver or library "
            'is missing; see what "onnxruntime.InferenceSession" prints, or ask for provider="cpu"'
        )
    return OrtSession(session, provider, values)


class OrtSession:
    """A session of ONNX Runtime: device tensors by IOBinding, no copies on the CPU."""

    def __init__(self, session: ort.InferenceSession, provider: str, weights: Sequence[ort.OrtValue]) -> None:
        self._session = session
        self._provider = provider
        self._weights = weights
        self._options: ort.RunOptions | None = None

    @property
    def provider(self) -> str:
        return self._provider

    def put(self, array: Array) -> ort.OrtValue:
        return _onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._provider)

    def run(
        self, feeds: Mapping[str, Handle | Array], outputs: Sequence[str], keep: Sequence[str] = ()
    ) -> dict[str, Handle | Array]:
        ort = _onnxruntime()
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if not isinstance(value, ort.OrtValue):
                value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        for name in keep:
            binding.bind_output(name, self._provider)
        self._options = ort.RunOptions()
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:
            raise _translated(error, "running it") from error
        finally:
            self._options = None
        values = binding.get_outputs()
        arrays = {name: value.numpy() for name, value in zip(outputs, values, strict=False)}
        return {**arrays, **dict(zip(keep, values[len(outputs) :], strict=True))}

    def stop(self) -> None:
        options = self._options
        if options is not None:
            options.terminate = True


def _translated(error: Exception, doing: str) -> OnnxplainError:
    """ONNX Runtime's error as one of ours; its text names the node."""
    text = str(error)
    if "terminate flag" in text:
        return Cancelled("stopped while it ran: nobody waited for the result any more")
    if "Failed to allocate" in text or "bad allocation" in text or "out of memory" in text:
        return LimitExceeded(f"out of memory while {doing}: lower max_rows, or take a smaller input ({text})")
    return OnnxplainError(f"ONNX Runtime failed while {doing}: {text}")


def _finds_device() -> bool:
    """Does this machine have a CUDA device? The GPU package is often installed where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderUnavailable(
            'onnxruntime is not installed: pip install "onnxplain[cpu]", or "onnxplain[gpu]" for NVIDIA GPUs'
        ) from error
    return onnxruntime
