"""What changed in operators between opset 7 and 21 beyond the types they accept, and how a node follows.

Every adapter edits one node in place, across one change of its operator. Changes that are not listed only added types,
or attributes and inputs whose default is the old behaviour (a test compares this list with ONNX's own schemas). The
table stands here since onnx.version_converter is silently wrong for linear Upsample-9 and Resize-10 (coordinates) and
for GroupNormalization-18 (scales per group), and renames tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxplain_convert.opset.site import Site

Adapter = Callable[[Site], None]

INT64 = ir.DataType.INT64


def attribute_to_input(name: str, index: int, dtype: ir.DataType | None = INT64, *, scalar: bool = False) -> Adapter:
    """An attribute became the input at ``index``; ``dtype`` None is the type of input 0."""

    def adapt(site: Site) -> None:
        value = site.take(name)
        if value is None or (not scalar and len(value) == 0):
            return
        site.put(index, site.constant(name, value, dtype or site.dtype()))

    return adapt


def several(*adapters: Adapter) -> Adapter:
    """One adapter after the other."""

    def adapt(site: Site) -> None:
        for one in adapters:
            one(site)

    return adapt


def softmax(site: Site) -> None:
    """Up to 12 the input was coerced to two dimensions at ``axis`` (default 1); from 13 it is one axis (default -1)."""
    x = site.node.inputs[0]
    assert x is not None
    axis = site.take("axis", 1)
    if x.shape is not None:
        rank = len(x.shape)
        axis += rank if axis < 0 else 0
        if all(d == 1 for d in x.shape[axis + 1 :]):
            site.set("axis", axis - rank if axis == rank - 1 else axis)
            return
    flat = site.insert("Flatten", [x], {"axis": axis})
    site.put(0, flat)
    site.set("axis", -1)
    y = site.node.outputs[0]
    if x.shape is not None and axis == 1 and all(isinstance(d, int) for d in x.shape[1:]):
        shape = site.constant("shape", [0, *[int(d) for d in x.shape[1:]]], INT64)  # type: ignore[arg-type]
    else:
        shape = site.insert("Shape", [x])
    _rename_after(site, y, "Reshape", [shape])


def _rename_after(
    site: Site, y: ir.Value, op: str, more: list[ir.Value], attributes: Mapping[str, object] | None = None
) -> None:
    """Append ``op`` behind the node's output ``y``; its result takes over y's name, users and place in the outputs."""
    name, y.name = y.name, site.fresh(f"{site.node.name}/before_{op}")
    result = site.insert(op, [y, *more], attributes, after=True)
    result.name, result.type, result.shape = name, y.type, y.shape
    y.shape = None
    user = result.producer()
    for use in tuple(y.uses()):
        if use.node is not user:
            use.node.replace_input_with(use.idx, result)
    outputs = site.graph.outputs
    for i, value in enumerate(outputs):
        if value is y:
            outputs[i] = result


def batch_normalization_9(site: Site) -> None:
    """``spatial`` is gone, and was 1 by default."""
    if site.take("spatial", 1) != 1:
        raise site.refuse(
            "spatial=0 (statistics per position) has no later form; export the model again with spatial=1"
        )


def batch_normalization_14(site: Site) -> None:
    """Up to 13 more than one output meant training; the two outputs for the saved statistics are gone since."""
    outputs = site.node.outputs
    if any(v.uses() or v.is_graph_output() for v in outputs[3:]):
        raise site.refuse("its saved_mean and saved_var are used, which no longer exist")
    if any(v.name for v in outputs[1:]):
        site.set("training_mode", 1)
    site.node.resize_outputs(min(len(outputs), 3))


def dropout_10(site: Site) -> None:
    """The mask had the data's type up to 9."""
    if len(site.node.outputs) > 1 and (site.node.outputs[1].uses() or site.node.outputs[1].is_graph_output()):
        mask = site.node.outputs[1]
        _rename_after(site, mask, "Cast", [], {"to": int(site.dtype())})
        mask.type = ir.TensorType(ir.DataType.BOOL)


def upsample_10(site: Site) -> None:
    """Deprecated: Resize-10 is the same and takes the same inputs."""
    site.node.op_type = "Resize"


def resize_11(site: Site) -> None:
    """Up to 10: asymmetric coordinates, rounded towards zero enlarging and up shrinking (as ONNX Runtime does)."""
    scales = site.node.inputs[1]
    site.put(2, scales)
    site.node.replace_input_with(1, None)
    site.set("coordinate_transformation_mode", "asymmetric")
    if site.attribute("mode", "nearest") == "nearest":
        known = site.known(2)
        if known is None:
            site.notes.append(
                f"{site.where}: its scales are computed by the model; taken to enlarge (nearest, rounded down)"
            )
        elif (known < 1).any() and (known > 1).any():
            raise site.refuse("it enlarges one axis and shrinks another, which rounded differently per axis")
        site.set("nearest_mode", "ceil" if known is not None and (known < 1).any() else "floor")


def resize_13(site: Site) -> None:
    """tf_half_pixel_for_nn, floor((x + 0.5) / scale), is half_pixel with halves rounded up."""
    if site.attribute("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        if (
            site.attribute("mode", "nearest") != "nearest"
            or site.attribute("nearest_mode", "round_prefer_floor") != "floor"
        ):
            raise site.refuse(
                "coordinate_transformation_mode=tf_half_pixel_for_nn is only known with nearest_mode=floor"
            )
        site.set("coordinate_transformation_mode", "half_pixel")
        site.set("nearest_mode", "round_prefer_ceil")
    for index in (1, 2):  # roi and scales had to be there; an empty one means absent
        known = site.known(index)
        if known is not None and known.size == 0:
            site.node.replace_input_with(index, None)


def roi_align_16(site: Site) -> None:
    """A new attribute whose default is not the old behaviour."""
    if "coordinate_transformation_mode" not in site.node.attributes:
        site.set("coordinate_transformation_mode", "output_half_pixel")


def split_18(site: Site) -> None:
    """Equal parts have to be counted."""
    if len(site.node.inputs) < 2 or site.node.inputs[1] is None:
        site.set("num_outputs", len(site.node.outputs))


def grid_sample_20(site: Site) -> None:
    """Modes were renamed with the third dimension."""
    mode = site.attribute("mode", "bilinear")
    site.set("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def dft_20(site: Site) -> None:
    """``axis`` became an input, with another default."""
    site.put(2, site.constant("axis", site.take("axis", 1), INT64))


def group_normalization_21(site: Site) -> None:
    """Scale and bias were per group up to 20, and are per channel since: repeat each (channels / groups) times."""
    x = site.node.inputs[0]
    channels = None if x is None or x.shape is None else x.shape[1]
    if not isinstance(channels, int):
        raise site.refuse("the number of channels is not known")
    groups = site.attribute("num_groups")
    index = site.constant("group_of_channel", np.arange(channels) // math.ceil(channels / groups), INT64)
    for i in (1, 2):
        site.node.replace_input_with(i, site.insert("Gather", [site.node.inputs[i], index], {"axis": 0}))


def scan_9(site: Site) -> None:
    """The batch axis is gone."""
    raise site.refuse("Scan-8 has a batch axis that later versions lack; export the model again at opset 9 or later")


def scatter_11(site: Site) -> None:
    """Deprecated: renamed."""
    site.node.op_type = "ScatterElements"


_SOFTMAX = {(op, 13): softmax for op in ("Softmax", "LogSoftmax", "Hardmax")}
_AXES_18 = {
    (f"Reduce{op}", 18): attribute_to_input("axes", 1)
    for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}

UPGRADES: Mapping[tuple[str, int], Adapter] = {
    **_SOFTMAX,
    **_AXES_18,
    ("BatchNormalization", 9): batch_normalization_9,
    ("BatchNormalization", 14): batch_normalization_14,
    ("Clip", 11): several(
        attribute_to_input("min", 1, None, scalar=True), attribute_to_input("max", 2, None, scalar=True)
    ),
    ("DFT", 20): dft_20,
    ("Dropout", 10): dropout_10,
    ("Dropout", 12): attribute_to_input("ratio", 1, ir.DataType.FLOAT, scalar=True),
    ("GridSample", 20): grid_sample_20,
    ("GroupNormalization", 21): group_normalization_21,
    ("Pad", 11): several(attribute_to_input("pads", 1), attribute_to_input("value", 2, None, scalar=True)),
    ("ReduceSum", 13): attribute_to_input("axes", 1),
    ("Resize", 11): resize_11,
    ("Resize", 13): resize_13,
    ("RoiAlign", 16): roi_align_16,
    ("Scan", 9): scan_9,
    ("Scatter", 11): scatter_11,
    ("Slice", 10): several(
        attribute_to_input("starts", 1), attribute_to_input("ends", 2), attribute_to_input("axes", 3)
    ),
    ("Split", 13): attribute_to_input("split", 1),
    ("Split", 18): split_18,
    ("Squeeze", 13): attribute_to_input("axes", 1),
    ("TopK", 10): lambda site: site.put(1, site.constant("k", [site.take("k")], INT64)),
    ("Unsqueeze", 13): attribute_to_input("axes", 1),
    ("Upsample", 9): attribute_to_input("scales", 1, ir.DataType.FLOAT),
    ("Upsample", 10): upsample_10,
}
"""(operator, version it changed in) -> how a node of the version before follows."""
