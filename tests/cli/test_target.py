"""Targets as people type them."""

from __future__ import annotations

import pytest

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.cli import target

SPEC = TensorSpec("x", "float32", (None, 4))
PLAIN = Manifest((SPEC,), (SPEC,), ("y",), "y", (SPEC,), {"x": "x"}, ("gradient",), {}, (), "independent")


def labelled(*labels: str) -> Manifest:
    return Manifest((SPEC,), (SPEC,), ("y",), "y", (SPEC,), {}, (), {}, (), "independent", labels=labels)


@pytest.mark.parametrize(
    ("text", "want"),
    [("top", "top"), ("281", 281), ("281,282", (281, 282)), ("3, 4", (3, 4)), ("tabby, tabby cat", "tabby, tabby cat")],
)
def test_numbers_are_numbers_and_all_else_is_a_name(text: str, want: object) -> None:
    assert target.parse(text) == want


def test_in_words() -> None:
    animals = labelled("tabby", "Egyptian cat")
    assert target.name(1, animals) == "Egyptian cat (1)"
    assert target.name((0, 7), animals) == "tabby (0) minus 7"
    assert target.name(5, PLAIN) == "5"
