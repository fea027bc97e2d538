"""Sessions: made when first needed, the least recently used dropped beyond a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from onnxplain.artifact import Artifact
from onnxplain.engine import lowering, weights
from onnxplain.engine.program import Program, build
from onnxplain.engine.session import Array, OpenSession, Session
from onnxplain.errors import OnnxplainError
from onnxplain.rows import Purpose


@dataclass(frozen=True, eq=False)
class Source:
    """Where one model's programs come from. Compared by identity: two engines never share a session."""

    artifact: Artifact
    provider: str
    open_session: OpenSession
    overrides: Mapping[str, Array]

    def load(self, purpose: Purpose, path: tuple[str, ...]) -> Loaded:
        program = build(self.artifact, purpose, path)
        lowering.lower(program.model, self.provider)
        try:
            model, arrays = weights.split(program, self.overrides)
            session = self.open_session(model, arrays, self.provider)
        except OnnxplainError as error:
            raise type(error)(f"program {program.name!r}: {error}") from error
        return Loaded(program, session, len(model) + sum(a.nbytes for a in arrays.values()))


@dataclass(frozen=True)
class Loaded:
    """A program with its session; ``nbytes`` that the session holds (its own copy of the weights)."""

    program: Program
    session: Session
    nbytes: int


Key = tuple[Source, Purpose, tuple[str, ...]]


class Store:
    """The cache. Used by one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._loaded: OrderedDict[Key, Loaded] = OrderedDict()

    def get(self, key: Key) -> Loaded:
        """The session of ``key``, made where there is none; the newest is kept even where it alone is too large."""
        if key not in self._loaded:
            source, purpose, path = key
            self._loaded[key] = source.load(purpose, path)
        self._loaded.move_to_end(key)
        while self.nbytes > self._max_bytes and len(self._loaded) > 1:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def drop(self, source: Source) -> None:
        """Forget the sessions of one model."""
        for key in [key for key in self._loaded if key[0] is source]:
            del self._loaded[key]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)
