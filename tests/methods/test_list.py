"""What holds for every method of the list."""

from __future__ import annotations

import pytest

from onnxplain.methods import METHODS, presets, smoothing
from onnxplain.methods.method import Method


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_options_describe_themselves(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method.summary and method.paper
    for option in method.options:
        assert option.help
        assert option.kind in {"int", "float", "bool", "str", "choice", "layer", "array", "indices"}
        assert option.kind != "choice" or option.default in (None, *option.choices)
        if option.minimum is not None and option.default is not None:
            assert option.minimum <= option.default <= (option.maximum or option.default)
    assert len({option.name for option in method.options}) == len(method.options)


def test_an_option_means_the_same_in_every_method() -> None:
    kinds: dict[str, str] = {}
    for method in METHODS.values():
        for option in method.options:
            assert kinds.setdefault(option.name, option.kind) == option.kind


def test_every_method_without_noise_of_its_own_can_be_smoothed() -> None:
    rest = [name for name, method in METHODS.items() if "noise_scale" not in {option.name for option in method.options}]
    assert sorted(rest) == sorted(smoothing.BASES)


def test_presets_name_options_that_their_methods_have() -> None:
    for name, methods in presets.PRESETS.items():
        for method, options in methods.items():
            known = {option.name for option in METHODS[method].options} | {"output"}
            assert set(options) <= known, (name, method)
