"""From a model to an artifact: what the manifest says is what the graph does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxplain_convert
from onnxplain.artifact import MANIFEST_KEY, Artifact, Manifest, Preprocessing
from onnxplain.errors import BadModel, BadRequest, NotFound, Unsupported
from onnxplain_convert import convert, differentiate
from onnxplain_convert.explainable import saving
from tests.convert.models import constant, model, normal, run

CLASSIFIER = """(float[N, 3, 8, 8] image) => (float[N, 4] probabilities) {
    [first] a = Conv <kernel_shape = [3, 3]> (image, w, b)
    [gate] r = Relu (a)
    [pool] p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    f = Flatten (p)
    [head] logits = Gemm (f, v, c)
    probabilities = Softmax (logits)
}"""


def classifier(opset: int = 18, body: str = CLASSIFIER) -> onnx.ModelProto:
    weights = {
        "w": 0.3 * normal(5, 3, 3, 3, seed=1),
        "b": 0.1 * normal(5, seed=2),
        "v": 0.2 * normal(45, 4, seed=3),
        "c": 0.1 * normal(4, seed=4),
    }
    return constant(model(opset, body), **weights)


def test_the_manifest_of_a_classifier(tmp_path: Path) -> None:
    how = Preprocessing("NCHW", "RGB", (8, 8), (0.5,) * 3, (0.25,) * 3)
    made = convert(classifier(), tmp_path / "net.onnx", preprocessing=how, labels=["a", "b", "c", "d"])
    manifest = made.manifest
    assert manifest.default_output == "logits"
    assert manifest.probabilities == {"probabilities": "logits"}
    assert manifest.explained == ("probabilities", "logits")
    assert [x.name for x in manifest.outputs] == ["probabilities", "logits"]
    assert manifest.inputs == manifest.differentiated
    assert manifest.inputs[0].shape == ("N", 3, 8, 8) and manifest.inputs[0].dtype == "float32"
    assert manifest.stands_for == {"image": "image"}
    assert manifest.rules == ("gradient", "guided", "deconvnet")
    assert manifest.rows == "independent"
    assert manifest.kinks == ("MaxPool", "Relu")
    assert manifest.gates == ("gate",)
    assert manifest.unreachable == ()
    assert manifest.preprocessing == how and manifest.labels == ("a", "b", "c", "d")
    assert manifest.source["framework"] == "onnx" and manifest.source["opset"] == {"ai.onnx": 18}
    assert manifest.parity["probabilities/relative"] < 1e-6
    assert manifest.parity["gradient/slope"] < 1e-2
    by_name = {layer.name: layer for layer in manifest.layers}
    assert [layer.op for layer in manifest.layers] == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Softmax"]
    assert by_name["first"].initializers == ("w", "b") and by_name["gate"].initializers == ()
    assert by_name["first"].shape == ("N", 5, 6, 6)


def test_the_file_is_the_artifact(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    made = convert(classifier(), path)
    opened = Artifact.open(path)
    assert opened.manifest == made.manifest == Manifest.from_json(opened.model.metadata_props[MANIFEST_KEY])
    onnx.checker.check_model(str(path), full_check=True)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    proto = onnx.load(path)
    assert proto.ir_version == 10 and {x.domain for x in proto.opset_import} == {""}
    assert {node.domain for node in proto.graph.node} == {""}
    names = [v.name for v in proto.graph.input]
    assert names == ["image", "seed/probabilities", "seed/logits"]
    x = normal(2, 3, 8, 8)
    seeds = {"seed/probabilities": np.zeros((2, 4), np.float32), "seed/logits": np.eye(2, 4, dtype=np.float32)}
    got = run(proto, {"image": x, **seeds})
    assert set(got) == {"probabilities", "logits", "gradient/image", "guided/image", "deconvnet/image"}
    np.testing.assert_allclose(got["probabilities"], run(classifier(), {"image": x})["probabilities"], rtol=1e-5)
    step = 1e-3 * normal(2, 3, 8, 8, seed=9)
    ahead, behind = (run(proto, {"image": x + s * step, **seeds})["logits"] for s in (1, -1))
    slope = np.diag((ahead - behind)[:, :2]) / 2
    # Central differences in float32 over a step of 1e-3: three digits.
    np.testing.assert_allclose((got["gradient/image"] * step).sum((1, 2, 3)), slope, rtol=2e-2, atol=1e-5)


def test_every_inner_tensor_has_its_gradient(tmp_path: Path) -> None:
    made = convert(classifier())
    values = ir.convenience.create_value_mapping(made.model.graph)
    for gradients in made.manifest.gradients.values():
        assert {"image", "a", "r", "p", "f", "logits"} <= gradients.keys()
        for tensor, gradient in gradients.items():
            assert values[tensor].shape == values[gradient].shape and values[tensor].dtype == values[gradient].dtype


def test_the_probability_alone_can_be_explained() -> None:
    manifest = convert(classifier(), outputs=["probabilities"], rules=["gradient"]).manifest
    assert manifest.explained == ("probabilities",) and manifest.default_output == "probabilities"
    assert list(manifest.gradients) == ["gradient"]


def test_an_inner_tensor_can_be_explained_and_differentiated() -> None:
    made = convert(classifier(), outputs=["f"], wrt=["r"])
    assert made.manifest.default_output == "f" and made.manifest.stands_for == {"r": "r"}
    assert "gradient/r" in [v.name for v in made.model.graph.outputs]


def test_token_ids_are_explained_through_their_embedding() -> None:
    body = """(int64[N, 7] ids, int64[N, 7] mask) => (float[N, 2] y) {
        e = Gather (table, ids)
        m = Cast <to = 1> (mask)  i = Constant <value_ints = [2]> ()  u = Unsqueeze (m, i)
        k = Mul (e, u)  axes = Constant <value_ints = [1]> ()
        s = ReduceSum <keepdims = 0> (k, axes)  y = MatMul (s, v)
    }"""
    made = convert(constant(model(18, body), table=normal(11, 6), v=normal(6, 2)))
    assert made.manifest.stands_for == {"e": "ids"}
    assert made.manifest.differentiated[0].shape == ("N", 7, 6)
    assert made.manifest.rows == "independent"
    assert made.manifest.parity["y/relative"] < 1e-6


def test_an_asked_input_is_replaced_by_its_embedding() -> None:
    body = "(int64[N, 7] ids) => (float[N, 7, 6] y) { e = Gather (table, ids)  y = Tanh (e) }"
    made = convert(constant(model(18, body), table=normal(11, 6)), wrt=["ids"])
    assert made.manifest.stands_for == {"e": "ids"}


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"outputs": ["logit"]}, NotFound, "nearest: logits"),
        ({"wrt": ["imag"]}, NotFound, "nearest: image"),
        ({"rules": ["guidde"]}, NotFound, "nearest: guided"),
        ({"rules": []}, BadRequest, "available"),
        ({"labels": ["a", "b"]}, BadRequest, "2 labels for the 4 classes"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(options: dict[str, list[str]], error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        convert(classifier(), **options)  # type: ignore[arg-type]


def test_a_model_without_floats_is_refused() -> None:
    with pytest.raises(Unsupported, match="no floating-point input"):
        convert(model(18, "(int64[n] x) => (float[n] y) { y = Cast <to = 1> (x) }"))
    with pytest.raises(Unsupported, match="no output is floating-point"):
        convert(model(18, "(float[n] x) => (int64[n] y) { y = Cast <to = 7> (x) }"))


def test_nothing_is_written_when_conversion_fails(tmp_path: Path) -> None:
    proto = model(18, "(float[n, 2] x) => (float[n, 2] y) { y = mine.Thing (x) }", extra='"mine": 1')
    with pytest.raises(Unsupported, match="mine::Thing"):
        convert(proto, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be written"):
        convert(classifier(), tmp_path / "none" / "net.onnx")


def test_what_is_none_of_the_sources() -> None:
    with pytest.raises(BadRequest, match="a dict is none of the models"):
        convert({})


def test_training_mode_is_ended_and_said() -> None:
    body = "(float[N, 3] x) => (float[N, 3] y) { y, rm, rv = BatchNormalization <training_mode = 1> (x, s, b, m, v) }"
    proto = constant(model(15, body), **{name: np.abs(normal(3, seed=i)) + 0.5 for i, name in enumerate("sbmv")})
    made = convert(proto)
    assert "training mode" in made.manifest.source["parity"]  # the outputs differ on purpose
    assert made.manifest.rows == "independent"
    assert any("training mode" in change for change in made.manifest.source["changes"])


def test_external_data_beside_the_artifact(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    made = convert(classifier(), path, external_data=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert path.stat().st_size < (tmp_path / "net.onnx.data").stat().st_size + 60_000
    onnx.checker.check_model(str(path), full_check=True)
    opened = Artifact.open(path)
    assert isinstance(opened.model.graph.initializers["v"].const_value, ir.ExternalTensor)
    assert opened.manifest.digest == made.manifest.digest


def test_large_weights_are_external_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "EXTERNAL_ABOVE", 1000)
    convert(classifier(), tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx.data").exists()


def test_external_data_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(classifier(), source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    made = convert(source, tmp_path / "net.onnx")
    assert made.manifest.source["file"] == "source.onnx"
    assert made.manifest.digest == convert(classifier()).manifest.digest
    (tmp_path / "weights.bin").unlink()
    x = normal(1, 3, 8, 8)  # the artifact stands alone
    proto = onnx.load(tmp_path / "net.onnx")
    seeds = {f"seed/{y}": np.zeros((1, 4), np.float32) for y in ("probabilities", "logits")}
    np.testing.assert_allclose(
        run(proto, {"image": x, **seeds})["probabilities"], run(classifier(), {"image": x})["probabilities"], rtol=1e-5
    )


def test_writing_over_the_data_that_is_being_read(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    onnx.save(classifier(), source, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    with pytest.raises(BadRequest, match="choose another name"):
        convert(source, source, external_data=True)


def test_converting_in_place(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(classifier(), path)
    digest = convert(path, path).manifest.digest
    assert Artifact.open(path).manifest.digest == digest


class TestDigest:
    def test_does_not_depend_on_names_of_files_or_rules(self, tmp_path: Path) -> None:
        for name in ("a.onnx", "b.onnx"):
            onnx.save(classifier(), tmp_path / name)
        a, b = (convert(tmp_path / name).manifest.digest for name in ("a.onnx", "b.onnx"))
        assert a == b == convert(classifier(), rules=["gradient"]).manifest.digest

    def test_does_not_depend_on_documentation_or_order_of_weights(self) -> None:
        proto = classifier()
        expected = convert(proto).manifest.digest
        proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "words"
        proto.producer_name, proto.graph.name = "someone", "another"
        weights = list(reversed(proto.graph.initializer))
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(weights)
        assert convert(proto).manifest.digest == expected

    @pytest.mark.parametrize("change", ["weight", "attribute", "operator"])
    def test_sees_every_change_of_the_model(self, change: str) -> None:
        proto = classifier()
        expected = convert(proto).manifest.digest
        if change == "weight":
            array = onnx.numpy_helper.to_array(proto.graph.initializer[1]).copy()
            array[-1] = np.nextafter(array[-1], np.float32(9))
            proto.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(array, proto.graph.initializer[1].name))
        elif change == "attribute":
            proto.graph.node[0].attribute.append(onnx.helper.make_attribute("dilations", [1, 1]))
        else:
            proto.graph.node[1].op_type = "Elu"
        assert convert(proto).manifest.digest != expected


class TestDifferentiate:
    def test_computes_what_it_computed_and_the_gradient(self) -> None:
        proto = model(18, "(float[n, 3] x, float[n, 3] z) => (float[n, 3] y) { y = Mul (x, z) }")
        new = differentiate(proto)
        onnx.checker.check_model(new, full_check=True)
        feeds = {"x": normal(2, 3), "z": normal(2, 3, seed=1), "seed/y": normal(2, 3, seed=2)}
        got = run(new, feeds)
        np.testing.assert_allclose(got["gradient/x"], feeds["z"] * feeds["seed/y"], rtol=1e-6)
        np.testing.assert_allclose(got["gradient/z"], feeds["x"] * feeds["seed/y"], rtol=1e-6)
        np.testing.assert_allclose(got["y"], feeds["x"] * feeds["z"], rtol=1e-6)

    def test_does_not_end_training_mode_nor_add_logits(self) -> None:
        names = [v.name for v in differentiate(classifier()).graph.output]
        assert names == ["probabilities", "gradient/image"]

    def test_twice(self) -> None:
        proto = model(18, "(float[n] x) => (float[n] y) { s = Mul (x, x)  y = Mul (s, x) }")
        twice = differentiate(differentiate(proto), wrt=["x"], outputs=["gradient/x"])
        got = run(
            twice,
            {
                "x": np.array([2.0], np.float32),
                "seed/y": np.ones(1, np.float32),
                "seed/gradient/x": np.ones(1, np.float32),
            },
        )
        names = [v.name for v in twice.graph.output]
        np.testing.assert_allclose(got[names[-1]], [12.0])  # (x^3)'' = 6x

    def test_leaves_the_given_model_alone(self) -> None:
        proto = classifier()
        before = proto.SerializeToString(deterministic=True)
        differentiate(proto)
        assert proto.SerializeToString(deterministic=True) == before


def test_coverage_counts_before_converting() -> None:
    body = """(float[n, 4] x) => (float[n, 4] y) {
        a = Relu (x)  b = Relu (a)  [odd] d = LpNormalization (b)  r = Round (d)  y = Add (r, d)
    }"""
    found = onnxplain_convert.coverage(model(18, body))
    states = {op.name: (op.count, op.state) for op in found.operators}
    assert states["Relu"] == (2, "rule") and states["Add"] == (1, "rule")
    assert states["Round"] == (1, "no gradient")
    assert found.opset == 18 and found.source_opset == {"": 18}
    assert {op.name for op in found.missing} == {name for name, (_, state) in states.items() if state == "missing"}


def test_bad_models_reach_the_caller() -> None:
    with pytest.raises(BadModel, match="truncated"):
        convert(b"\x08\x0a" + b"garbage" * 20)
    assert dataclasses.is_dataclass(onnxplain_convert.Operator)


def test_an_artifact_is_not_converted_again(tmp_path: Path) -> None:
    proto = constant(model(18, "(float[n, 4] x) => (float[n, 2] y) { y = MatMul (x, w) }"), w=normal(4, 2))
    convert(proto, tmp_path / "net.explain.onnx")
    with pytest.raises(BadRequest, match="artifact already"):
        convert(tmp_path / "net.explain.onnx")
