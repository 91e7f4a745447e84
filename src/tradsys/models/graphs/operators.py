"""The operators that a received ONNX graph may hold: those of tradsys' exporters and common ones of other nets.

Excluded are operators with a body of their own (If, Loop, Scan, functions), sequences, optional values and
texts, random numbers, references to other files, and domains other than ONNX's own.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx

from tradsys.core.errors import BundleError
from tradsys.core.received import one_line

EXPORTED = (
    "Add Cast Clip Concat Constant ConstantOfShape Conv Div Equal Erf Expand Gather Gemm GreaterOrEqual Identity "
    "InstanceNormalization LayerNormalization Log MatMul Mul Neg Pad ReduceL2 ReduceMean ReduceSum Relu Reshape Shape "
    "Slice Softmax Sqrt Sub Transpose Trilu Unsqueeze Where"
)  # of tradsys' nets, probes, scalers and calibrators
COMMON = (
    "Abs And ArgMax ArgMin AveragePool BatchNormalization Ceil Cos CumSum Elu Exp Flatten Floor GatherElements Gelu "
    "GlobalAveragePool GlobalMaxPool Greater GroupNormalization GRU HardSigmoid HardSwish LeakyRelu Less LessOrEqual "
    "LogSoftmax LSTM Max MaxPool Mean Min Mish Mod Not Or Pow PRelu Reciprocal ReduceL1 ReduceLogSumExp ReduceMax "
    "ReduceMin ReduceProd ReduceSumSquare RMSNormalization Round Selu Sigmoid Sign Sin Softplus Softsign Split Squeeze "
    "Sum Swish Tan Tanh ThresholdedRelu Xor"
)  # of nets from installed packages
ALLOWED = frozenset((*EXPORTED.split(), *COMMON.split()))
NUMBERS = frozenset(
    getattr(onnx.AttributeProto, name) for name in ("FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS")
)  # kinds of attributes; not graphs, sparse tensors, types
MOST_NODES = 50_000


def check_operators(model: onnx.ModelProto, where: str, fix: str) -> None:
    """Raises BundleError where a graph holds more than allowed operators.

    They work on numbers.
    """
    graph = model.graph
    parts = {
        "functions of its own": model.functions,
        "training steps": model.training_info,
        "sparse constants": graph.sparse_initializer,
        "quantisation": graph.quantization_annotation,
        "domains of operators": [one for one in model.opset_import if one.domain not in ("", "ai.onnx")],
        "inputs or outputs that are no tensors": [
            one
            for one in (*graph.input, *graph.output, *graph.value_info)
            if one.HasField("type") and one.type.WhichOneof("value") != "tensor_type"
        ],
        "constants in other files": [
            one for one in graph.initializer if one.external_data or one.data_location != onnx.TensorProto.DEFAULT
        ],
    }
    for what, found in parts.items():
        if len(found):
            raise BundleError(f"{where} holds {len(found)} {what}; a bundle's graph holds none; {fix}")
    if len(graph.node) > MOST_NODES:
        raise BundleError(f"{where} holds {len(graph.node):,} operators; at most {MOST_NODES:,} are read; {fix}")
    _check_nodes(graph.node, where, fix)
    _check_names(graph, where, fix)


def _check_names(graph: onnx.GraphProto, where: str, fix: str) -> None:
    """Raises BundleError for a name of two tensors: the size of one might pass for that of the other."""
    constants = [one.name for one in graph.initializer]
    inputs = {one.name for one in graph.input} - set(constants)  # an input may have a default
    given = Counter([*constants, *inputs, *(name for node in graph.node for name in node.output if name)])
    taken = sorted(name for name, times in given.items() if times > 1)
    if taken:
        raise BundleError(f"{where}: {one_line(taken, 80)} each name more than one of its tensors; {fix}")


def _check_nodes(nodes: Iterable[Any], where: str, fix: str) -> None:
    strange = sorted(
        {
            f"{node.domain}.{node.op_type}".lstrip(".")
            for node in nodes
            if node.op_type not in ALLOWED or node.domain not in ("", "ai.onnx")
        }
    )
    if strange:
        raise BundleError(
            f"{where} holds the operators {one_line(strange, 80)}; a bundle's graph holds arithmetic on tensors alone, "
            f"see models.graphs.operators; {fix}"
        )
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type not in NUMBERS or attribute.ref_attr_name or attribute.t.external_data:
                kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
                raise BundleError(
                    f"{where}: its {node.op_type} has an attribute {one_line(attribute.name, 40)!r} of kind {kind}; "
                    f"only numbers, texts and tensors of its own are read; {fix}"
                )
