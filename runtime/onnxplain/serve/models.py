"""The models of a folder: found, loaded one after the other, and looked up by name."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from onnxplain.artifact import Manifest
from onnxplain.errors import BadModel, BadRequest, NotFound, OnnxplainError, Unavailable, nearest
from onnxplain.explanation import Explanation

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A model's name: never a path, and printable everywhere."""


class Servable(Protocol):
    """What the server asks of a model; `onnxplain.Model` is one."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def provider(self) -> str: ...

    def explain(self, x: Any, method: str = ..., target: Any = ..., **options: Any) -> Explanation: ...

    def close(self) -> None: ...


Load = Callable[[Path], Servable]


class State(Enum):
    """Of one file in the folder."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass
class Entry:
    """One file of the folder and what became of it."""

    name: str
    path: Path
    state: State = State.LOADING
    model: Servable | None = None
    reason: str = ""


def find(folder: str | Path) -> dict[str, Path]:
    """Name -> file of every .onnx file in the folder; the name is the stem without `.explain`.

    Raises BadRequest where there is no such folder, no such file in it, or two files have the same name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give a folder with .onnx files")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.onnx")):
        name = path.stem.removesuffix(".explain")
        if name in found:
            both = f"{found[name].name} and {path.name}"
            raise BadRequest(f"{folder}: two files are both named {name!r}: {both}; rename or remove one")
        found[name] = path
    if not found:
        raise BadRequest(f"{folder}: there is no .onnx file in it")
    return found


class Models:
    """Models by name. Names from the wire are looked up in a dictionary and are never part of a path."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._entries = {name: Entry(name, path) for name, path in paths.items()}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def load(self, load: Load, stop: Callable[[], bool], loaded: Callable[[Entry], None]) -> None:
        """Load every file in turn with ``load``, telling ``loaded`` of each; a broken one does not stop the others."""
        for entry in self:
            if stop():
                return
            begin = time.monotonic()
            try:
                if not NAME.fullmatch(entry.name):
                    raise BadModel(
                        f"{entry.path.name}: a model's name is at most 128 letters, digits, '.', '_' and '-': rename it"
                    )
                model = load(entry.path)
            except OnnxplainError as error:
                self._failed(entry, str(error))
                log.error("model=%r failed: %s", entry.name, error)
            except Exception as error:
                # A broken file can end in any exception of any parser (UnicodeDecodeError is one seen).
                kind = type(error).__name__
                self._failed(entry, f"{entry.path.name}: cannot be loaded ({kind}); the server's log has more")
                log.exception("model=%r failed", entry.name)
            else:
                with self._lock:
                    entry.model, entry.state = model, State.READY
                log.info("model=%r ready seconds=%.2f", entry.name, time.monotonic() - begin)
            loaded(entry)

    def _failed(self, entry: Entry, reason: str) -> None:
        with self._lock:
            entry.state, entry.reason = State.FAILED, reason

    def get(self, name: str) -> Servable:
        """The model of that name.

        Raises NotFound, Unavailable while it is being loaded, BadModel where its file is broken.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"no model {name[:128]!r}; {nearest(name[:128], self._entries)}")
        with self._lock:
            if entry.model is not None:
                return entry.model
            if entry.state is State.FAILED:
                raise BadModel(f"model {name!r} is not served: {entry.reason}")
        raise Unavailable(f"model {name!r} is still loading: try again a little later")

    def close(self) -> None:
        """Close every model; the names stay."""
        for entry in self:
            with self._lock:
                model, entry.model, entry.state = entry.model, None, State.LOADING
            if model is not None:
                model.close()
