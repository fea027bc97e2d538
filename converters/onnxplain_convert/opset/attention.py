"""The transformer operators of ``com.microsoft`` in standard operators: normalisation, embeddings, attention.

Attention is written out over (batch, heads, sequence, head size): softmax(scale q k' + bias) v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_convert.opset.site import Site

INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT


def skip_layer_normalization(site: Site) -> None:
    """LayerNormalization of input + skip + bias."""
    total = _skip_sum(site, 4)
    attributes = {"axis": -1, "epsilon": site.attribute("epsilon", 1e-12)}
    y = site.insert("LayerNormalization", [total, site.node.inputs[2], site.given(3)], attributes)
    _saved(site)
    site.become(y, None, None, total)


def skip_simplified_layer_normalization(site: Site) -> None:
    """The same divided by the root mean square, without centring."""
    total = _skip_sum(site, 3)
    _saved(site)
    site.become(_rms(site, total, site.node.inputs[2], [-1]), None, None, total)


def simplified_layer_normalization(site: Site) -> None:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from ``axis`` on."""
    rank = None if site.x.shape is None else len(site.x.shape)
    axis = site.attribute("axis", -1)
    if axis != -1 and rank is None:
        raise site.refuse(f"axis={axis} needs the rank of {site.x.name!r}, which is not known")
    axes = [-1] if rank is None else list(range(axis % rank, rank))
    if len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise site.refuse("its second output is used, which only training does")
    site.become(_rms(site, site.x, site.node.inputs[1], axes))


def embed_layer_normalization(site: Site) -> None:
    """LayerNormalization of the sum of word, position and segment embeddings."""
    ids, segments, words, places, segment_table, gamma, beta, mask, position_ids = (site.given(i) for i in range(9))
    if mask is not None and len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise site.refuse("its mask_index is used: give attention the mask itself")
    total = site.insert("Gather", [words, ids])
    if position_ids is None:
        steps = _positions(site, site.insert("Shape", [ids], {"start": 1, "end": 2}))
        total = site.insert("Add", [total, site.insert("Gather", [places, steps])])
    else:
        total = site.insert("Add", [total, site.insert("Gather", [places, position_ids])])
    if segment_table is not None and segments is not None:
        total = site.insert("Add", [total, site.insert("Gather", [segment_table, segments])])
    attributes = {"axis": -1, "epsilon": site.attribute("epsilon", 1e-12)}
    site.become(site.insert("LayerNormalization", [total, gamma, beta], attributes), None, total)


def rotary_embedding(site: Site) -> None:
    """x cos + rotated(x) sin on the first ``rotary_embedding_dim`` components of every head."""
    if site.attribute("is_packed_batching", 0):
        raise site.refuse("is_packed_batching is for ragged batches of a server")
    x, positions, cos, sin = site.node.inputs
    assert x is not None
    assert positions is not None
    rank = None if x.shape is None else len(x.shape)
    dim, heads = site.attribute("rotary_embedding_dim", 0), site.attribute("num_heads", 0)
    if rank not in (3, 4):
        raise site.refuse(f"the rank of {x.name!r} must be known to be 3 or 4")
    if rank == 3:
        size = -1 if heads else _cache_width(site, cos) * 2
        split = site.insert("Reshape", [x, _ints(site, 0, 0, heads or -1, size)])
        heads_first = site.insert("Transpose", [split], {"perm": [0, 2, 1, 3]})
    else:
        heads_first = x
    if positions.shape is not None and len(positions.shape) == 1:
        length = site.insert("Shape", [heads_first], {"start": 2, "end": 3})
        positions = site.insert(
            "Unsqueeze", [site.insert("Add", [_positions(site, length), positions]), _ints(site, 0)]
        )
    y = _rotated(site, heads_first, cos, sin, positions, site.attribute("interleaved", 0), dim)
    if site.attribute("scale", 1.0) != 1.0:
        y = site.insert("Mul", [y, site.constant("scale", site.attribute("scale"), site.dtype())])
    site.become(_joined(site, y) if rank == 3 else y)


def attention(site: Site) -> None:
    """Self-attention with one matrix for queries, keys and values."""
    for name in ("do_rotary", "past_present_share_buffer"):
        if site.attribute(name, 0):
            raise site.refuse(f"{name} is not supported")
    if site.given(4) is not None or (len(site.node.outputs) > 1 and site.node.outputs[1].uses()):
        raise site.refuse("past or present keys and values are not supported: export the model without a cache")
    heads = site.attribute("num_heads")
    weights = site.node.inputs[1]
    width = weights.shape[1] if weights is not None and weights.shape is not None else None
    sizes = site.attribute("qkv_hidden_sizes") or ([width // 3] * 3 if isinstance(width, int) else None)
    if sizes is None:
        raise site.refuse("the width of its weights is not known")
    packed = site.insert("MatMul", [site.x, weights])
    if site.given(2) is not None:
        packed = site.insert("Add", [packed, site.given(2)])
    q, k, v = (_head(site, part, heads) for part in _parts(site, packed, list(sizes)))
    bias = _sum(site, site.given(5), _padding(site, site.given(3), k, site.attribute("mask_filter_value", -10000.0)))
    y = _attend(site, q, k, v, bias, causal=bool(site.attribute("unidirectional", 0)))
    site.become(_joined(site, y))


def multi_head_attention(site: Site) -> None:
    """Attention of given queries, keys and values (batch, sequence, hidden), with their biases in one vector."""
    if any(site.given(i) is not None for i in (6, 7, 8, 9)) or any(v.uses() for v in site.node.outputs[1:]):
        raise site.refuse("past or present keys and values are not supported: export the model without a cache")
    query, key, value, bias, mask = (site.given(i) for i in range(5))
    heads = site.attribute("num_heads")
    if key is None or value is None or any(v.shape is None or len(v.shape) != 3 for v in (query, key, value) if v):
        raise site.refuse("only queries, keys and values of rank 3 are supported, not the packed layouts")
    parts: list[ir.Value] = [site.x, key, value]
    if bias is not None:
        widths = [v.shape[2] if v.shape is not None else None for v in parts]
        if not all(isinstance(w, int) for w in widths):
            raise site.refuse("the widths of queries, keys and values are not known")
        biases = _parts(site, bias, [int(w) for w in widths], axis=0)  # type: ignore[arg-type]
        parts = [site.insert("Add", pair) for pair in zip(parts, biases, strict=True)]
    q, k, v = (_head(site, part, heads) for part in parts)
    filled = _padding(site, mask, k, site.attribute("mask_filter_value", -10000.0))
    y = _attend(site, q, k, v, _sum(site, site.given(5), filled), causal=bool(site.attribute("unidirectional", 0)))
    site.become(_joined(site, y))


def group_query_attention(site: Site) -> None:
    """Causal attention in which several query heads share a key head, over a whole prompt."""
    refused = ("smooth_softmax", "sliding_window_cache", "qk_output", "kv_cache_bit_width")
    for name in refused:
        if site.attribute(name, 0):
            raise site.refuse(f"{name} is not supported")
    if any(site.given(i) is not None for i in range(11, 16)):
        raise site.refuse("head_sink, quantised caches and normalised queries are not supported")
    past = site.given(3)
    if past is not None and (past.shape is None or past.shape[2] != 0):
        raise site.refuse("past keys and values are not supported: export the prompt without a cache")
    heads, kv_heads = site.attribute("num_heads"), site.attribute("kv_num_heads")
    parts = [site.x, site.given(1), site.given(2)]
    if parts[1] is None:
        width = site.x.shape[2] if site.x.shape is not None else None
        if not isinstance(width, int):
            raise site.refuse("the width of its packed queries, keys and values is not known")
        size = width // (heads + 2 * kv_heads)
        parts = list(_parts(site, site.x, [heads * size, kv_heads * size, kv_heads * size]))
    q, k, v = (_head(site, p, n) for p, n in zip(parts, (heads, kv_heads, kv_heads), strict=True) if p is not None)
    length = site.insert("Shape", [k], {"start": 2, "end": 3})
    steps = _positions(site, length)
    if site.attribute("do_rotary", 0):
        positions = site.given(9) or site.insert("Unsqueeze", [steps, _ints(site, 0)])
        q, k = (
            _rotated(site, t, site.given(7), site.given(8), positions, site.attribute("rotary_interleaved", 0), 0)
            for t in (q, k)
        )
    present = (k, v)
    if heads != kv_heads:
        k, v = (_repeated(site, t, heads // kv_heads) for t in (k, v))
    last = site.insert("Cast", [site.node.inputs[5]], {"to": int(INT64)})
    last = site.insert("Reshape", [last, _ints(site, -1, 1, 1, 1)])
    bias = _sum(site, site.given(10), _minus_infinity(site, site.insert("Greater", [steps, last]), site.dtype()))
    window = site.attribute("local_window_size", -1)
    softcap = site.attribute("softcap", 0.0)
    causal = bool(site.attribute("causal", 1))
    y = _attend(site, q, k, v, bias, causal=causal, window=window, softcap=softcap)
    site.become(_joined(site, y), *present)


# ----- pieces


def _skip_sum(site: Site, bias: int) -> ir.Value:
    total = site.insert("Add", site.node.inputs[:2])
    return total if site.given(bias) is None else site.insert("Add", [total, site.given(bias)])


def _saved(site: Site) -> None:
    if any(v.uses() for v in site.node.outputs[1:3]):
        raise site.refuse("its saved mean or deviation is used, which only training does")


def _rms(site: Site, x: ir.Value, scale: ir.Value | None, axes: list[int]) -> ir.Value:
    square = site.insert("ReduceMean", [site.insert("Mul", [x, x]), _ints(site, *axes)], {"keepdims": 1})
    epsilon = site.constant("epsilon", site.attribute("epsilon", 1e-5), site.dtype())
    root = site.insert("Sqrt", [site.insert("Add", [square, epsilon])])
    return site.insert("Mul", [site.insert("Div", [x, root]), scale])


def _ints(site: Site, *values: int) -> ir.Value:
    return site.constant("ints", np.asarray(values, np.int64), INT64)


def _positions(site: Site, length: ir.Value) -> ir.Value:
    """0, 1, ..., length - 1; ``length`` is a vector of one element."""
    zero, one = (site.constant("int", np.int64(n), INT64) for n in (0, 1))
    return site.insert("Range", [zero, site.insert("Squeeze", [length, _ints(site, 0)]), one])


def _parts(site: Site, value: ir.Value, sizes: list[int], axis: int = -1) -> list[ir.Value]:
    found, start = [], 0
    for size in sizes:
        bounds = [_ints(site, n) for n in (start, start + size, axis)]
        found.append(site.insert("Slice", [value, *bounds]))
        start += size
    return found


def _head(site: Site, value: ir.Value, heads: int) -> ir.Value:
    """(batch, sequence, hidden) as (batch, heads, sequence, head size)."""
    split = site.insert("Reshape", [value, _ints(site, 0, 0, heads, -1)])
    return site.insert("Transpose", [split], {"perm": [0, 2, 1, 3]})


def _joined(site: Site, value: ir.Value) -> ir.Value:
    back = site.insert("Transpose", [value], {"perm": [0, 2, 1, 3]})
    return site.insert("Reshape", [back, _ints(site, 0, 0, -1)])


def _repeated(site: Site, value: ir.Value, times: int) -> ir.Value:
    """Every head ``times`` over."""
    wide = site.insert("Unsqueeze", [value, _ints(site, 2)])
    spread = site.insert("Expand", [wide, _ints(site, 1, 1, times, 1, 1)])
    shape = site.insert("Shape", [value])
    parts = [
        site.insert("Slice", [shape, _ints(site, 0), _ints(site, 1)]),
        _ints(site, -1),
        site.insert("Slice", [shape, _ints(site, 2), _ints(site, 4)]),
    ]
    return site.insert("Reshape", [spread, site.insert("Concat", parts, {"axis": 0})])


def _sum(site: Site, x: ir.Value | None, y: ir.Value | None) -> ir.Value | None:
    if x is None or y is None:
        return x if y is None else y
    return site.insert("Add", [x, y])


def _padding(site: Site, mask: ir.Value | None, k: ir.Value, fill: float) -> ir.Value | None:
    """``fill`` where a key is padding: a mask (batch, keys) or (batch, queries, keys), or lengths (batch,)."""
    if mask is None:
        return None
    rank = None if mask.shape is None else len(mask.shape)
    if rank == 1:
        steps = _positions(site, site.insert("Shape", [k], {"start": 2, "end": 3}))
        lengths = site.insert("Reshape", [site.insert("Cast", [mask], {"to": int(INT64)}), _ints(site, -1, 1, 1, 1)])
        absent = site.insert("GreaterOrEqual", [steps, lengths])
    elif rank in (2, 3):
        zero = site.constant("zero", 0, mask.dtype or ir.DataType.INT32)
        absent = site.insert("Equal", [mask, zero])
        absent = site.insert("Unsqueeze", [absent, _ints(site, *((1, 2) if rank == 2 else (1,)))])
    else:
        raise site.refuse(
            f"a mask of rank {rank} is not supported; (batch,), (batch, keys) or (batch, queries, keys) is"
        )
    zero, filled = (site.constant("fill", v, site.dtype()) for v in (0.0, fill))
    return site.insert("Where", [absent, filled, zero])


def _minus_infinity(site: Site, where: ir.Value, dtype: ir.DataType) -> ir.Value:
    low = np.finfo(dtype.numpy()).min if dtype != ir.DataType.BFLOAT16 else -3e38
    zero, lowest = (site.constant("fill", v, dtype) for v in (0.0, low))
    return site.insert("Where", [where, lowest, zero])


def _attend(
    site: Site,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    bias: ir.Value | None,
    *,
    causal: bool,
    window: int = -1,
    softcap: float = 0.0,
) -> ir.Value:
    """softmax(scale q k' + bias) v; ``causal``: no key behind the query; ``window``: only so many up to it."""
    dtype = site.dtype()
    scores = site.insert("MatMul", [q, site.insert("Transpose", [k], {"perm": [0, 1, 3, 2]})])
    scale = site.attribute("scale", 0.0)
    if scale:
        scores = site.insert("Mul", [scores, site.constant("scale", scale, dtype)])
    else:
        size = site.insert("Cast", [site.insert("Shape", [q], {"start": 3, "end": 4})], {"to": int(dtype)})
        scores = site.insert("Div", [scores, site.insert("Sqrt", [size])])
    if softcap:
        cap = site.constant("softcap", softcap, dtype)
        scores = site.insert("Mul", [site.insert("Tanh", [site.insert("Div", [scores, cap])]), cap])
    if bias is not None:
        scores = site.insert("Add", [scores, bias])
    if causal:
        queries, keys = (site.insert("Shape", [t], {"start": 2, "end": 3}) for t in (q, k))
        offset = site.insert("Sub", [keys, queries])
        rows = site.insert("Unsqueeze", [site.insert("Add", [_positions(site, queries), offset]), _ints(site, 1)])
        columns = _positions(site, keys)
        hidden = site.insert("Greater", [columns, rows])
        if window > 0:
            first = site.insert("Sub", [rows, _ints(site, window)])
            hidden = site.insert("Or", [hidden, site.insert("LessOrEqual", [columns, first])])
        scores = site.insert("Add", [scores, _minus_infinity(site, hidden, dtype)])
    return site.insert("MatMul", [site.insert("Softmax", [scores], {"axis": -1}), v])


def _cache_width(site: Site, cache: ir.Value | None) -> int:
    width = cache.shape[1] if cache is not None and cache.shape is not None else None
    if not isinstance(width, int):
        raise site.refuse("the width of its cos_cache is not known, and neither is the size of a head")
    return width


def _rotated(
    site: Site,
    x: ir.Value,
    cos: ir.Value | None,
    sin: ir.Value | None,
    positions: ir.Value,
    interleaved: int,
    dim: int,
) -> ir.Value:
    """Rotary embedding of (batch, heads, sequence, head size) at ``positions`` (batch, sequence)."""
    width = _cache_width(site, cos)
    dim = dim or 2 * width
    tables = [site.insert("Unsqueeze", [site.insert("Gather", [t, positions]), _ints(site, 1)]) for t in (cos, sin)]
    end = _ints(site, np.iinfo(np.int64).max)

    def taken(value: ir.Value, start: int, stop: ir.Value, step: int = 1) -> ir.Value:
        return site.insert("Slice", [value, _ints(site, start), stop, _ints(site, -1), _ints(site, step)])

    part = taken(x, 0, _ints(site, dim))
    if interleaved:
        first, second = taken(part, 0, end, 2), taken(part, 1, end, 2)
    else:
        first, second = taken(part, 0, _ints(site, dim // 2)), taken(part, dim // 2, end)
    c, s = tables
    real = site.insert("Sub", [site.insert("Mul", [first, c]), site.insert("Mul", [second, s])])
    imaginary = site.insert("Add", [site.insert("Mul", [first, s]), site.insert("Mul", [second, c])])
    if interleaved:
        pair = [site.insert("Unsqueeze", [t, _ints(site, -1)]) for t in (real, imaginary)]
        turned = site.insert("Reshape", [site.insert("Concat", pair, {"axis": -1}), _ints(site, 0, 0, 0, -1)])
    else:
        turned = site.insert("Concat", [real, imaginary], {"axis": -1})
    rest: list[Any] = [turned, taken(x, dim, end)]
    return site.insert("Concat", rest, {"axis": -1})
