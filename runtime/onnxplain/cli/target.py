"""What to explain, as typed on a command line."""

from __future__ import annotations

from onnxplain.artifact import Manifest
from onnxplain.errors import NotFound, nearest

Target = int | str | tuple[int, int]


def parse(text: str, manifest: Manifest) -> Target:
    """``top``, a class number, a pair ``281,282`` (the first minus the second), or a class name of the manifest.

    Raises NotFound with the nearest class names.
    """
    if text == "top":
        return text
    parts = text.split(",")
    if len(parts) <= 2 and all(_is_number(part) for part in parts):
        first, *second = (int(part) for part in parts)
        return (first, second[0]) if second else first
    labels = manifest.labels or ()
    for index, label in enumerate(labels):
        if label.casefold() == text.casefold():
            return index
    known = nearest(text, labels) if labels else "the model carries no class names: give the class's number"
    raise NotFound(f"no class {text!r} ({known}); a target is a class number, a name, top, or a pair such as 281,282")


def name(target: object, manifest: Manifest) -> str:
    """A resolved target in words: the class's name where the manifest has it."""
    if isinstance(target, tuple) and len(target) == 2:
        return f"{name(target[0], manifest)} minus {name(target[1], manifest)}"
    labels = manifest.labels or ()
    if isinstance(target, int) and 0 <= target < len(labels):
        return f"{labels[target]} ({target})"
    return str(target)


def _is_number(text: str) -> bool:
    return text.strip().isdecimal()
