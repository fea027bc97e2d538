"""What a GPU run is asked beside its results: which GPU, how much of its memory, what crosses to and from it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain import Model
from onnxplain.artifact import Artifact
from onnxplain.engine import Engine
from onnxplain.engine.session import Session, open_session


def smi(query: str) -> str:
    """One answer of nvidia-smi about the first GPU. Raises OSError or CalledProcessError where there is none."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most MiB in use on the GPU above what was before, in the list's one element, sampled five times a second."""
    before, peak, done = float(smi("memory.used")), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], float(smi("memory.used")) - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


@dataclass
class Copies:
    """Sizes in bytes of the arrays that crossed between host and device."""

    to_device: list[int] = field(default_factory=list)
    to_host: list[int] = field(default_factory=list)

    def clear(self) -> None:
        """Count from here on."""
        self.to_device.clear()
        self.to_host.clear()

    def __str__(self) -> str:
        parts = ((self.to_device, "to the device"), (self.to_host, "back"))
        return ", ".join(f"{len(sizes)} arrays {sum(sizes) / 1e6:.2f} MB {where}" for sizes, where in parts)


@dataclass(frozen=True)
class Counted:
    """A session that writes down what it copies."""

    session: Session
    copies: Copies

    @property
    def provider(self) -> str:
        return self.session.provider

    def put(self, array: NDArray[Any]) -> Any:
        self.copies.to_device.append(array.nbytes)
        return self.session.put(array)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str], keep: Sequence[str] = ()) -> dict[str, Any]:
        self.copies.to_device.extend(value.nbytes for value in feeds.values() if isinstance(value, np.ndarray))
        results = self.session.run(feeds, outputs, keep)
        self.copies.to_host.extend(results[name].nbytes for name in outputs)
        return results

    def stop(self) -> None:
        self.session.stop()


def model_on(artifact: Artifact, provider: str, *, tf32: bool = False, copies: Copies | None = None) -> Model:
    """The artifact on a provider, its copies written down. Raises ProviderUnavailable where CUDA is not to be had."""

    def opened(model: bytes, weights: Mapping[str, NDArray[Any]], provider: str) -> Session:
        session = open_session(model, weights, provider, use_tf32=tf32)
        return session if copies is None else Counted(session, copies)

    return Model(artifact, Engine(artifact, provider, open_session=opened))
