"""Plain ONNX files are converted in a process of their own, with bounds on memory and time: they are not trusted.

What a parser, a shape inference or a constant folding does with a hostile graph then happens to the child, not to a
server that has other models to serve.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from onnxplain import errors
from onnxplain.errors import BadModel, OnnxplainError, Unavailable
from onnxplain.serve.limits import MIB, Limits

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
LONGEST_ANSWER = 64 * 1024
BEFOREHAND = "convert it beforehand with `onnxplain convert` and serve the artifact"


def convert_apart(path: Path, limits: Limits, stop: Callable[[], bool]) -> Path:
    """The artifact of a plain ONNX file, made in a child process and kept in the user's cache.

    Raises what the conversion raises, BadModel where it took too much memory or time or crashed, and Unavailable where
    ``stop`` became true meanwhile.
    """
    log.info("converting %s", path.name)
    begin = time.monotonic()
    # An empty working directory: nothing a model may name without a folder is found there.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as answer:
        arguments = (str(path.absolute()), str(limits.convert_bytes))
        # What this process imports, that one does too, wherever it stands.
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "onnxplain.serve.convert", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            stdout=answer,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                if stop():
                    raise Unavailable(f"{path.name}: the server stops")
                if time.monotonic() - begin > limits.convert_seconds:
                    raise BadModel(f"{path.name}: conversion took more than {limits.convert_seconds:g} s: {BEFOREHAND}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        answer.seek(0)
        said = answer.read(LONGEST_ANSWER)
    return _answer(path, child.returncode, said, limits)


def _answer(path: Path, code: int, said: bytes, limits: Limits) -> Path:
    try:
        message: dict[str, str] = json.loads(said)
    except ValueError:
        message = {}
    if code == 0 and "artifact" in message:
        return Path(message["artifact"])
    if "error" in message:
        kind = getattr(errors, message["error"], OnnxplainError)
        raise kind(message["text"])
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise BadModel(
        f"{path.name}: conversion ended with {how}, perhaps for want of memory"
        f" (it may use {limits.convert_bytes // MIB} MiB): {BEFOREHAND}"
    )


def main(path: str, most_bytes: str) -> None:
    """In the child: bounds first, then the conversion; one line of JSON says what came of it."""
    bound_memory(int(most_bytes))
    # Whatever a library prints must not stand in the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name = Path(path).name
    try:
        message = {"artifact": str(_converted(Path(path)))}
    except OnnxplainError as error:
        message = {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        message = _bad(f"{name}: conversion needs more than {int(most_bytes) // MIB} MiB of memory: {BEFOREHAND}")
    except Exception as error:
        traceback.print_exc()
        message = _bad(f"{name}: conversion failed ({type(error).__name__}); the server's log has more")
    answer.write(json.dumps(message))
    answer.close()


def _bad(text: str) -> dict[str, str]:
    return {"error": BadModel.__name__, "text": text}


def _converted(path: Path) -> Path:
    from onnxplain.explain import converted

    try:
        return converted(path)
    except OSError:
        # A container's file system is often read-only but for its temporary folder.
        return converted(path, tempfile.mkdtemp(prefix="onnxplain-"))


def bound_memory(most: int) -> None:
    """Bound the address space and the size of files of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
