"""What to explain, as typed on a command line."""

from __future__ import annotations

from onnxplain.artifact import Manifest

Target = int | str | tuple[int, int]


def parse(text: str) -> Target:
    """A class number, a pair ``281,282`` (first minus second), else the text itself: ``top`` or a class's name."""
    parts = text.split(",")
    if len(parts) <= 2 and all(part.strip().isdecimal() for part in parts):
        first, *second = (int(part) for part in parts)
        return (first, second[0]) if second else first
    return text


def name(target: object, manifest: Manifest) -> str:
    """A resolved target in words: the class's name where the manifest has it."""
    if isinstance(target, tuple) and len(target) == 2:
        return f"{name(target[0], manifest)} minus {name(target[1], manifest)}"
    labels = manifest.labels or ()
    if isinstance(target, int) and 0 <= target < len(labels):
        return f"{labels[target]} ({target})"
    return str(target)
