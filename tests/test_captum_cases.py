"""The numeric cases of Captum's own unit tests, from ONNX through convert, load and explain.

``data/captum_cases.json`` has the facts (see its head for source and licence); this file says how a call to Captum is
written here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxplain
import onnxplain_convert
from onnxplain import Explanation

FACTS = json.loads((Path(__file__).parent / "data" / "captum_cases.json").read_text())
CASES = {case["id"]: case for case in FACTS["cases"]}

METHODS = {
    "Gradient": "gradient",
    "Saliency": "gradient",
    "IntegratedGradients": "integrated_gradients",
    "GuidedBackprop": "guided_backprop",
    "Deconvolution": "deconvnet",
    "LayerGradCam": "grad_cam",
    "GuidedGradCam": "guided_grad_cam",
}

OPTIONS = {
    "n_steps": "n_steps",
    "method": "quadrature",
    "multiply_by_inputs": "multiply_by_inputs",
    "interpolate_mode": "interpolation",
    "relu_attributions": "relu",
}
"""Captum's arguments by the names of the options here; their values are the same in these cases."""


def model_of(case: dict[str, Any]) -> onnx.ModelProto:
    """The network of a case, its batch axis symbolic, its inputs as wide as the case's."""
    facts = FACTS["models"][case["model"]]
    weights = {**facts["initializers"], **case.get("initializer_overrides", {})}
    whole = facts.get("int_initializers", [])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, i, o, **attributes) for operator, i, o, attributes in facts["nodes"]],
        case["model"],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *np.shape(value)[1:]])
            for name, value in case["inputs"].items()
        ],
        [
            onnx.helper.make_tensor_value_info(
                facts["output"], onnx.TensorProto.FLOAT, ["N", *np.shape(case["forward_output"])[1:]]
            )
        ],
        [
            onnx.numpy_helper.from_array(np.array(value, np.int64 if name in whole else np.float32), name)
            for name, value in weights.items()
        ],
    )
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def explained(case: dict[str, Any], folder: Path) -> Explanation:
    arguments = {**case.get("init_args", {}), **case["method_args"]}
    options = {name: arguments[key] for key, name in OPTIONS.items() if key in arguments}
    method = METHODS[case["method"]]
    if method == "grad_cam":
        options.setdefault("relu", False)  # Captum's default; the paper's is True
        options["per_map"] = not arguments.get("attr_dim_summation", True)
    if "layer" in case:
        side = "in" if arguments.get("attribute_to_layer_input") else "out"
        (options["layer"],) = FACTS["models"][case["model"]]["layers"][case["layer"]][side]
    if "baselines" in arguments:
        baselines = zip(case["inputs"], arguments["baselines"], strict=True)
        options["baseline"] = {name: np.array(value[0], np.float32) for name, value in baselines}
    onnxplain_convert.convert(model_of(case), folder / "net.onnx")
    inputs = {name: np.array(value, np.float32) for name, value in case["inputs"].items()}
    with onnxplain.load(folder / "net.onnx", provider="cpu") as model:
        np.testing.assert_allclose(
            model.predict(inputs)[FACTS["models"][case["model"]]["output"]], case["forward_output"], atol=1e-4
        )
        return model.explain(inputs, method, arguments.get("target", "top"), **options)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    explanation = explained(case, tmp_path)
    maps = [explanation.attributions[tensor] for tensor in case["inputs"]]
    if case["method"] == "LayerGradCam":
        maps = [explanation.extras.get("maps", explanation.extras["layer_map"][:, None])]
    if case["method_args"].get("abs"):
        maps = [np.abs(map_) for map_ in maps]
    for got, expected in zip(maps, case["expected"], strict=True):
        difference = np.abs(got - np.array(expected))
        assert got.shape == np.shape(expected)
        assert (difference.sum() if case["tolerance"]["mode"] == "sum" else difference.max()) <= case["tolerance"][
            "delta"
        ]


def test_no_case_is_lost() -> None:
    assert len(CASES) == 16
