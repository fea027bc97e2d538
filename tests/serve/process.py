"""A server as its own process, and what it logs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from onnxplain.client import Client

PATIENCE = 120.0
"""Seconds until a test that waits for something that never comes fails; nothing is measured by it."""


class Process:
    """`onnxplain serve` on a folder, on loopback and a free port."""

    def __init__(self, folder: Path, cache: Path, *options: str) -> None:
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        self.environment = {**os.environ, "PYTHONPATH": search, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onnxplain", "serve", str(folder), "--port", "0", *options],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def logged(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits until so many lines have the pattern; the first of them."""

        def found() -> list[re.Match[str]]:
            return [match for line in list(self.lines) if (match := re.search(pattern, line))]

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or not self._reader.is_alive(), PATIENCE)
        matches = found()
        assert len(matches) >= times, f"logged {len(matches)} times, not {times}: {pattern}\n{self.log}"
        return matches[0]

    @property
    def address(self) -> str:
        return self.logged(r"listening on (127\.0\.0\.1:\d+)")[1]

    def client(self, timeout: float | None = PATIENCE) -> Client:
        """A client once every model is warm."""
        self.logged(r"\bserving \w")  # fails with the whole log where the server ended instead
        client = Client(self.address, timeout=timeout)
        client.wait_until_ready(PATIENCE)
        return client

    def end(self, how: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """The exit code of a process that ends by itself."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def kill(self) -> None:
        """For a test that is over, however it ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.ended()
