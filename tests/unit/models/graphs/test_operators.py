"""Graphs that run a body of their own, read other files or grow without bound are refused before a session is built."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.small_bundle import logistic_graph
from tradsys.core.errors import BundleError
from tradsys.models.graphs import sizes
from tradsys.models.graphs.sizes import MOST, batch_of, numbers
from tradsys.models.onnx_runtime import OnnxModel

N_FEATURES = 4
node = helper.make_node


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def grown(*nodes, constants=(), weights=()):
    """A sound graph with further nodes, constants from Python lists and constants that say their size alone."""
    model = logistic_graph(N_FEATURES)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([ints(name, *values) for name, values in dict(constants).items()])
    for name, dims in dict(weights).items():
        model.graph.initializer.append(TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT))
    return model


def body(name="body"):
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    inner = node("Constant", [], ["o"], value=numpy_helper.from_array(np.ones(1, dtype=np.float32)))
    return helper.make_graph([inner], name, [], [out])


def with_function():
    model = grown(node("Twice", ["logit"], ["more"], domain="own"))
    model.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])],
                             [helper.make_opsetid("", 17)])
    )  # fmt: skip
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def with_sequence_output():
    model = grown()
    model.graph.output.append(helper.make_tensor_sequence_value_info("more", TensorProto.FLOAT, [1]))
    return model


def with_sparse_constant():
    model = grown()
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "sparse")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, ints("at", 0), [2**40]))
    return model


def with_nan():
    model = grown()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values.flat[1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, model.graph.initializer[0].name))
    return model


def with_external_data(path="../../etc/passwd"):
    model = grown()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", path
    return model


def with_external_data_of_an_odd_order():
    """The key's bytes do not stand as the fast check looks for them."""
    model = with_external_data()
    model.graph.initializer[0].external_data[0].key = "offset"
    return model


def with_stated_size():
    """The file states [N, 2] of an answer of [2 ** 33, 2] numbers."""
    model = grown(constants={"two": [2, 2], "powers": [33, 1]})
    del model.graph.node[2]
    model.graph.node.extend([node("Pow", ["two", "powers"], ["s"]), node("ConstantOfShape", ["s"], ["score"])])
    model.graph.node.append(model.graph.node.pop(2))  # reads the score, so it comes last
    return model


doubled = [node("Concat", [f"d{k}", f"d{k}"], [f"d{k + 1}"], axis=0) for k in range(40)]
outer = [
    node("Unsqueeze", ["window", "axis"], ["w0"]),
    node("Reshape", ["window", "flat"], ["column"]),
    node("Transpose", ["column"], ["line"], perm=[1, 0]),
    node("MatMul", ["column", "line"], ["square"]),  # [N F, N F], so batches of windows grow as their square
    node("Reshape", ["square", "flat"], ["tall"]),
    node("Transpose", ["tall"], ["broad"], perm=[1, 0]),
    node("MatMul", ["tall", "broad"], ["fourth"]),
]
REFUSED = {
    "If": (grown(node("If", ["c"], ["x"], then_branch=body(), else_branch=body()), constants={"c": [1]}), "operators"),
    "Loop": (grown(node("Loop", ["n", ""], ["x"], body=body()), constants={"n": [2**62]}), "operators"),
    "Scan": (grown(node("Scan", ["logit"], ["x"], body=body(), num_scan_inputs=1)), "operators"),
    "graph in an allowed operator": (grown(node("Add", ["logit", "logit"], ["x"], hook=body())), "kind GRAPH"),
    "another domain": (grown(node("Inverse", ["logit"], ["x"], domain="com.microsoft")), "operators"),
    "allowed name of another domain": (grown(node("Add", ["logit", "logit"], ["x"], domain="evil")), r"evil\.Add"),
    "function": (with_function(), "functions of its own"),
    "sequence": (grown(node("SequenceConstruct", ["logit"], ["x"])), "operators"),
    "sequence output": (with_sequence_output(), "no tensors"),
    "optional": (grown(node("Optional", ["logit"], ["x"])), "operators"),
    "text": (grown(node("StringNormalizer", ["logit"], ["x"])), "operators"),
    "random": (grown(node("RandomNormal", [], ["x"], shape=[2**30])), "operators"),
    "random like": (grown(node("Bernoulli", ["logit"], ["x"])), "operators"),
    "Range": (grown(node("Range", ["a", "b", "c"], ["x"]), constants={"a": [0], "b": [2**60], "c": [1]}), "operators"),
    "Tile": (grown(node("Tile", ["logit", "t"], ["x"]), constants={"t": [2**30, 2**30]}), "operators"),
    "Resize": (grown(node("Resize", ["logit", "", "", "t"], ["x"]), constants={"t": [2**20, 2**20]}), "operators"),
    "sparse constant": (with_sparse_constant(), "sparse constants"),
    "sparse constant in a node": (
        grown(node("Constant", [], ["x"], sparse_value=with_sparse_constant().graph.sparse_initializer[0])), "SPARSE"),
    "external data": (with_external_data(), "another file"),
    "external data, hidden": (with_external_data_of_an_odd_order(), "constants in other files"),
    "ConstantOfShape": (grown(node("ConstantOfShape", ["s"], ["x"]), constants={"s": [2**20, 2**20]}), "numbers for"),
    "ConstantOfShape beyond counting": (
        grown(node("ConstantOfShape", ["s"], ["x"]), constants={"s": [2**62, 2**62, 2**62]}), "model.onnx"),
    "Expand": (grown(node("Expand", ["b", "s"], ["x"]), constants={"s": [2**33, 2]}), "numbers for"),
    "Pad": (grown(node("Pad", ["logit", "p"], ["x"]), constants={"p": [0, 0, 2**33, 0]}), "numbers for"),
    "doubled forty times": (grown(*doubled, constants={"d0": [1, 1]}), "numbers for"),
    "doubled forty times from a window": (
        grown(node("Identity", ["logit"], ["d0"]), *doubled), "numbers for"),
    "outer products of windows": (
        grown(*outer, constants={"axis": [0], "flat": [-1, 1]}), "numbers for"),
    "size computed from the batch": (
        grown(node("Shape", ["window"], ["n"]), node("Pow", ["n", "e"], ["s"]), node("ConstantOfShape", ["s"], ["x"]),
              constants={"e": [5]}), "numbers for"),
    "size computed from prices": (
        grown(node("Reshape", ["window", "f"], ["w"]), node("Cast", ["w"], ["s"], to=TensorProto.INT64),
              node("ConstantOfShape", ["s"], ["x"]), constants={"f": [-1]}), "cannot be known"),
    "constant without its data": (grown(node("Relu", ["big"], ["x"]), weights={"big": [2**20, 2**20]}), "numbers for"),
    "a constant computed anew for every window": (
        grown(node("ConstantOfShape", ["s"], ["x"]), constants={"s": [2**29]}), "numbers for a window"),
    "NaN among the weights": (with_nan(), "holds NaN"),
    "NaN in a node": (
        grown(node("Constant", [], ["x"], value=numpy_helper.from_array(np.full(2, np.nan)))), "holds NaN"),
    "size that the file states of an answer": (with_stated_size(), "numbers for"),
    "a constant's name given anew": (grown(node("Relu", ["logit"], ["W"])), "more than one of its tensors"),
    "a constant of two sizes": (grown(weights={"W": [1]}), "more than one of its tensors"),
    "an operator's name given anew": (
        grown(node("Relu", ["logit"], ["x"]), node("Abs", ["W"], ["x"])), "more than one of its tensors"),
    "operators without number": (
        grown(*[node("Identity", ["logit"], [f"i{k}"]) for k in range(50_001)]), "at most 50,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_is_more_than_arithmetic_is_refused_before_a_session(name, tmp_path, monkeypatch):
    model, words = REFUSED[name]
    monkeypatch.setattr(onnxruntime, "InferenceSession", pytest.fail)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=words) as refused:
        OnnxModel.load(path)
    assert "\n" not in str(refused.value)


def test_sizes_that_follow_from_one_another_without_end_are_refused(monkeypatch):
    """Each shape is known only after the reshape before it: so many inferences of the whole graph."""
    chain = []
    for k in range(60):
        before = f"r{k - 1}" if k else "logit"
        chain += [node("Shape", [before], [f"s{k}"]), node("Reshape", [before, f"s{k}"], [f"r{k}"])]
    model = grown(*chain)
    inferences = []
    monkeypatch.setattr(sizes, "_shapes", lambda known, real=sizes._shapes: (inferences.append(known), real(known))[1])
    assert numbers(model, 2, "g", "fix") > 0
    assert len(inferences) > 60
    monkeypatch.setattr(sizes, "MOST_INFERRED", 2_000)
    with pytest.raises(BundleError, match=r"g: the sizes of its tensors follow from one another .* at most 2,000"):
        numbers(model, 2, "g", "fix")


def test_a_graph_of_arithmetic_loads_with_what_other_nets_use(tmp_path):
    path = tmp_path / "model.onnx"
    more = [node("Gelu", ["logit"], ["g"]), node("Tanh", ["g"], ["t"]), node("Split", ["t"], ["p", "q"], axis=1)]
    model = grown(*more)
    model.opset_import[0].version = 20
    model.graph.node[-1].attribute.append(helper.make_attribute("num_outputs", 2))
    path.write_bytes(model.SerializeToString())
    assert OnnxModel.load(path).batch == 1024


def test_sizes_count_every_tensor_of_a_call():
    # window 4, its row 4, logit 2, score 2, probability 2 of each window; W [4, 2], b [2], shape [2]
    assert numbers(logistic_graph(N_FEATURES), 10, "g", "fix") == 10 * (4 + 4 + 2 + 2 + 2) + 8 + 2 + 2


def test_a_batch_is_as_large_as_memory_allows():
    each = [node("Unsqueeze", ["logit", "axis"], ["one"]), node("Expand", ["one", "s"], ["x"])]
    wide = grown(*each, constants={"axis": [0], "s": [2**22, 1, 1]})
    batch = batch_of(wide, 1024, "g", "fix")
    assert batch == MOST // 2**23 - 1
    assert numbers(wide, batch, "g", "fix") <= MOST < numbers(wide, batch + 1, "g", "fix")
