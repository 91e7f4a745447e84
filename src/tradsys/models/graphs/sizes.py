"""The size of every tensor of a graph, before a session is built: a small file can request terabytes.

Shape inference alone does not find sizes that a graph computes (of heads, halves, paddings): that arithmetic on shapes
is evaluated here, see `arithmetic`, and its result becomes a constant for the next inference. The inference follows no
data itself: it would do so without bound.
"""

import math

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from tradsys.core.errors import BundleError
from tradsys.core.received import one_line
from tradsys.core.tables import Array
from tradsys.models.graphs.arithmetic import result
from tradsys.models.graphs.operators import check_operators

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
SMALL = 4096  # numbers of a tensor that may be part of the arithmetic on shapes
MOST = 2**30  # numbers of all tensors of one call together
MOST_INFERRED = 500_000  # operators in all inferences together: seconds; a Transformer of 24 layers takes 8,300
MOST_OF_WINDOW = 2**26  # of these, computed for one window: about as many as a net of 12 layers on 512 bars computes


def read_graph(content: bytes, most: int, where: str, fix: str) -> int:
    """Windows per call of the graph in a file's bytes, checked.

    It holds arithmetic on tensors alone; see `batch_of`.
    """
    model = onnx.load_model_from_string(content)
    check_operators(model, where, fix)
    batch = batch_of(model, most, where, fix)
    _check_numbers(model, where, fix)
    return batch


def _check_numbers(model: onnx.ModelProto, where: str, fix: str) -> None:
    """Raises BundleError for a constant that is no number: whatever it touches is none either."""
    constants = [
        *model.graph.initializer,
        *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t")),
    ]
    for one in constants:
        if one.data_type in FLOATS and np.isnan(numpy_helper.to_array(one)).any():
            raise BundleError(f"{where}: its constant {one_line(one.name, 40)!r} holds NaN; it is damaged; {fix}")


def batch_of(model: onnx.ModelProto, most: int, where: str, fix: str) -> int:
    """Windows per call, at most `most`, within the limit of numbers.

    No call needs more than MOST numbers in all its tensors. Raises BundleError where a call of two windows needs more,
    or where the size of a tensor is unknown.
    """
    n_of_two = numbers(model, 2, where, fix)
    batch = max(2, min(most, 2 * MOST // max(n_of_two, 1)))
    found = numbers(model, batch, where, fix)
    computed = (found - sum(math.prod(one.dims) for one in model.graph.initializer)) / batch
    if computed > MOST_OF_WINDOW:
        raise BundleError(
            f"{where} computes {computed:.3g} numbers for a window; at most {MOST_OF_WINDOW:,} are computed; {fix}"
        )
    if max(found, n_of_two) > MOST:
        raise BundleError(
            f"{where} takes {max(found, n_of_two):.3g} numbers for {batch} windows; at most {MOST:,} are computed in a "
            f"call; {fix}"
        )
    return batch


def numbers(model: onnx.ModelProto, n_windows: int, where: str, fix: str) -> int:
    """Numbers in all tensors of a graph together for an input of so many windows."""
    known = _with_batch(model, n_windows)
    constants = {one.name: one for one in known.graph.initializer if math.prod(one.dims) <= SMALL}
    small = {name: numpy_helper.to_array(one) for name, one in constants.items()}
    inferred = 0
    while True:
        inferred += len(known.graph.node)
        if inferred > MOST_INFERRED:
            raise BundleError(
                f"{where}: the sizes of its tensors follow from one another in {inferred:,} steps; at most "
                f"{MOST_INFERRED:,} are taken; {fix}"
            )
        shapes = _shapes(known)
        unknown = [name for node in known.graph.node for name in node.output if name and name not in shapes]
        if not unknown:
            return sum(math.prod(shape) for shape in shapes.values())
        if not _folded(known.graph, shapes, small):
            raise BundleError(f"{where}: the size of {len(unknown)} of its tensors cannot be known; {fix}")


def _with_batch(model: onnx.ModelProto, n_windows: int) -> onnx.ModelProto:
    """A copy whose input has the batch size `n_windows`, and without the sizes that a file states: none is trusted."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    del known.graph.value_info[:]
    for value in known.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in known.graph.input:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = n_windows
    return known


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Known shapes by tensor."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            found[value.name] = [dim.dim_value for dim in tensor.shape.dim]
    return found | {one.name: list(one.dims) for one in model.graph.initializer}


def _folded(graph: onnx.GraphProto, shapes: dict[str, list[int]], small: dict[str, Array]) -> int:
    """Replaces nodes with known, small results by constants; returns how many."""
    fresh: dict[str, Array] = {}
    for node in graph.node:
        answer = _answer(node, shapes, small)
        if answer is not None:
            small[node.output[0]] = fresh[node.output[0]] = answer
    left = [node for node in graph.node if node.output[0] not in fresh]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fresh.items())
    return len(fresh)


def _answer(node: onnx.NodeProto, shapes: dict[str, list[int]], small: dict[str, Array]) -> Array | None:
    """Result of a node where it is known and small; else None."""
    inputs = [name for name in node.input if name]
    if len(node.output) != 1 or math.prod(shapes.get(node.output[0], [SMALL + 1])) > SMALL:
        return None
    if node.op_type == "Shape" and node.input[0] in shapes and node.input[0] not in small:
        ends = {one.name: one.i for one in node.attribute}
        return np.array(shapes[node.input[0]], dtype=np.int64)[ends.get("start", 0) : ends.get("end")]
    return result(node, [small[name] for name in inputs]) if all(name in small for name in inputs) else None
