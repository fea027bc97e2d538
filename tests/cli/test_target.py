"""Targets as people type them."""

from __future__ import annotations

import pytest

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.cli import target
from onnxplain.errors import NotFound

SPEC = TensorSpec("x", "float32", (None, 4))
PLAIN = Manifest((SPEC,), (SPEC,), ("y",), "y", (SPEC,), {"x": "x"}, ("gradient",), {}, (), "independent")


def labelled(*labels: str) -> Manifest:
    return Manifest((SPEC,), (SPEC,), ("y",), "y", (SPEC,), {}, (), {}, (), "independent", labels=labels)


@pytest.mark.parametrize(("text", "want"), [("top", "top"), ("281", 281), ("281,282", (281, 282)), ("3, 4", (3, 4))])
def test_numbers_and_top(text: str, want: object) -> None:
    assert target.parse(text, PLAIN) == want


def test_names_whatever_their_case() -> None:
    animals = labelled("tabby", "Egyptian cat", "1")
    assert target.parse("egyptian cat", animals) == 1
    assert target.parse("1", animals) == 1, "a number is always a number"
    with pytest.raises(NotFound, match=r"no class 'taby' \(nearest: tabby\)"):
        target.parse("taby", animals)
    with pytest.raises(NotFound, match="no class names"):
        target.parse("tabby", PLAIN)


def test_in_words() -> None:
    animals = labelled("tabby", "Egyptian cat")
    assert target.name(1, animals) == "Egyptian cat (1)"
    assert target.name((0, 7), animals) == "tabby (0) minus 7"
    assert target.name(5, PLAIN) == "5"
