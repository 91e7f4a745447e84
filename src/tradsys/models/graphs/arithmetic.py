"""The result of one node for known inputs, as onnx's reference implementation gives it.

That implementation loads all its 200 operators for the first node. So the operators that compute sizes in graphs of
tradsys' exporters are evaluated by numpy, in the forms that these exporters write; all else by the reference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tradsys.core.tables import Array

DTYPES = tuple(np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64"))
CASTS = tuple(helper.np_dtype_to_tensor_dtype(dtype) for dtype in DTYPES)
INT, INTS, TENSOR = (getattr(onnx.AttributeProto, name) for name in ("INT", "INTS", "TENSOR"))
ATTRIBUTES = {"allowzero": INT, "axis": INT, "keepdims": INT, "perm": INTS, "to": INT, "value": TENSOR}
READERS: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    INT: lambda one: one.i,
    INTS: lambda one: list(one.ints),
    TENSOR: lambda one: numpy_helper.to_array(one.t),
}


def result(node: onnx.NodeProto, values: Sequence[Array]) -> Array:
    """The only output of a node for its inputs, those left out excluded.

    Raises what numpy or the reference raises where they do not fit the operator.
    """
    with np.errstate(all="ignore"):
        found = _by_numpy(node, values)
        return _by_reference(node, values) if found is None else np.asarray(found)


def _by_numpy(node: onnx.NodeProto, values: Sequence[Array]) -> Array | None:
    """None for an operator, a form of it or a kind of numbers without a rule."""
    rule = RULES.get((node.op_type, *sorted(one.name for one in node.attribute)))
    if rule is None or node.domain or len(values) != len(node.input):
        return None
    if any(value.dtype not in DTYPES for value in values) or any(a.type != ATTRIBUTES[a.name] for a in node.attribute):
        return None
    return rule(*values, **{one.name: READERS[one.type](one) for one in node.attribute})


def _by_reference(node: onnx.NodeProto, values: Sequence[Array]) -> Array:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - loads all operators, and few graphs need it

    inputs = dict(zip((name for name in node.input if name), values, strict=True))
    answer: Array = ReferenceEvaluator(node).run(None, inputs)[0]  # type: ignore[index,assignment]
    return np.asarray(answer)


def _arithmetic(operation: Callable[[Array, Array], Array]) -> Callable[..., Array | None]:
    """On numbers of one type alone: the reference refuses others, and texts of booleans."""

    def rule(a: Array, b: Array) -> Array | None:
        return operation(a, b) if a.dtype == b.dtype != np.bool_ else None

    return rule


def _divided(a: Array, b: Array) -> Array:
    """Integers are rounded towards zero; by zero they give zero."""
    if a.dtype.kind == "f":
        return np.divide(a, b)
    return np.floor_divide(a, b) + ((np.remainder(a, b) != 0) & ((a < 0) ^ (b < 0))).astype(a.dtype)


def _cast(a: Array, to: int) -> Array | None:
    return a.astype(helper.tensor_dtype_to_np_dtype(to)) if to in CASTS else None


def _are_lists(*values: Array) -> bool:
    """Whether these are lists of integers: sizes, axes or bounds."""
    return all(value.ndim == 1 and value.dtype.kind == "i" for value in values)


def _constant_of_shape(shape: Array, value: Array) -> Array | None:
    return np.full(tuple(shape), value.flat[0]) if _are_lists(shape) and value.size == 1 else None


def _gathered(a: Array, indices: Array, axis: int = 0) -> Array | None:
    return np.take(a, indices, axis=axis) if indices.dtype.kind == "i" else None


def _norm(a: Array, axes: Array | None = None, *, keepdims: int) -> Array | None:
    if axes is None or not _are_lists(axes) or not axes.size or a.dtype.kind != "f":
        return None
    return np.sqrt(np.sum(np.square(a), axis=tuple(axes), keepdims=keepdims != 0)).astype(a.dtype)


def _reshaped(a: Array, shape: Array, allowzero: int = 0) -> Array | None:
    if not _are_lists(shape):
        return None
    return np.reshape(a, [a.shape[k] if n == 0 and allowzero != 1 else n for k, n in enumerate(shape)])


def _sliced(
    a: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array | None:
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones_like(starts) if steps is None else steps
    if not _are_lists(starts, ends, axes, steps):
        return None
    cuts = [slice(None)] * a.ndim
    for axis, *cut in zip(axes, starts, ends, steps, strict=False):
        cuts[axis] = slice(*cut)
    return a[tuple(cuts)]


def _squeezed(a: Array, axes: Array) -> Array | None:
    return np.squeeze(a, tuple(axes)) if _are_lists(axes) else None


def _unsqueezed(a: Array, axes: Array) -> Array | None:
    return np.expand_dims(a, tuple(axes)) if _are_lists(axes) else None


RULES: dict[tuple[str, ...], Callable[..., Array | None]] = {  # by operator and the attributes that a node has
    ("Add",): _arithmetic(np.add),
    ("Cast", "to"): _cast,
    ("Concat", "axis"): lambda *parts, axis: np.concatenate(parts, axis),
    ("Constant", "value"): lambda value: value,
    ("ConstantOfShape", "value"): _constant_of_shape,
    ("Div",): _arithmetic(_divided),
    ("Equal",): _arithmetic(np.equal),
    ("Gather",): _gathered,
    ("Gather", "axis"): _gathered,
    ("Identity",): lambda a: a,
    ("Mul",): _arithmetic(np.multiply),
    ("ReduceL2", "keepdims"): _norm,
    ("Reshape",): _reshaped,
    ("Reshape", "allowzero"): _reshaped,
    ("Slice",): _sliced,
    ("Sqrt",): lambda a: np.sqrt(a) if a.dtype.kind == "f" else None,
    ("Squeeze",): _squeezed,
    ("Sub",): _arithmetic(np.subtract),
    ("Transpose", "perm"): lambda a, perm: np.transpose(a, perm or None),
    ("Unsqueeze",): _unsqueezed,
}
