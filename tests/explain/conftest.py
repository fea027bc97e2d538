"""Models loaded once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import onnxplain
from onnxplain import Model
from onnxplain_convert import convert
from tests import models

Loaded = Callable[..., Model]


@pytest.fixture(scope="session")
def loaded() -> Iterator[Loaded]:
    """A model of ``tests.models`` on the CPU; options are ``convert``'s."""
    kept: dict[Any, Model] = {}

    def load(text: str, **options: Any) -> Model:
        key = (text, repr(options))
        if key not in kept:
            kept[key] = onnxplain.load(convert(models.model(text), **options), provider="cpu")
        return kept[key]

    yield load
    for each in kept.values():
        each.close()


@pytest.fixture
def cnn(loaded: Loaded) -> Model:
    return loaded(models.CNN)
