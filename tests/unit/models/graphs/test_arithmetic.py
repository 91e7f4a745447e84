"""Each rule of numpy gives what onnx's reference implementation gives, and refuses what it refuses."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tradsys.models.graphs import arithmetic
from tradsys.models.graphs.arithmetic import DTYPES, RULES, result

make = helper.make_node
KINDS = st.sampled_from(DTYPES)
SMALL = st.integers(-4, 5)
FAR = st.one_of(SMALL, st.sampled_from([-(2**63), -(2**31), 2**31 - 1, 2**63 - 1]))
EDGES = {"i": [0, -1, 7], "f": [0.0, -0.0, np.inf, -np.inf, 2.5, -2.5], "b": [True]}


@st.composite
def tensors(draw, kinds=KINDS, most_dims=3):
    """Any numbers of a rank of 0 to most_dims, sides of 0 to 4, and now and then not contiguous."""
    dtype = np.dtype(draw(kinds))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=most_dims, min_side=0, max_side=4))
    numbers = hnp.from_dtype(dtype, allow_nan=False)
    value = draw(hnp.arrays(dtype, shape, elements=st.one_of(numbers, st.sampled_from(EDGES[dtype.kind]))))
    return value.T if draw(st.booleans()) else value


def lists(numbers=SMALL, kinds=("int64", "int32", "float32")):
    """Sizes, axes or bounds; seldom of a kind that is none, or no list."""
    small = st.builds(
        lambda some, kind: np.array(some, dtype=np.int64).clip(-(2**31), 2**31 - 1).astype(kind),
        st.lists(numbers, max_size=4), st.sampled_from(kinds),
    )  # fmt: skip
    wide = st.builds(lambda some: np.array(some, dtype=np.int64), st.lists(numbers, max_size=4))
    return st.one_of(wide, wide, small, st.builds(lambda one: np.array(one, dtype=np.int64), SMALL))


@st.composite
def pairs(draw):
    """Two tensors, mostly of one kind and of shapes that broadcast."""
    kind = draw(KINDS)
    first = draw(tensors(st.just(kind)))
    if draw(st.integers(0, 4)) == 0:
        return [first, draw(tensors())]
    shape = [draw(st.sampled_from([side, 1])) for side in first.shape[draw(st.integers(0, first.ndim)) :]]
    numbers = st.one_of(hnp.from_dtype(kind, allow_nan=False), st.sampled_from(EDGES[kind.kind]))
    return [first, draw(hnp.arrays(kind, shape, elements=numbers))]


def inputs(*parts):
    return st.tuples(*parts).map(list)


ANY, INDICES = tensors(), tensors(st.sampled_from(["int64", "int32", "float64", "bool"]), 2)
FLOATS = tensors(st.sampled_from(["float32", "float64"]))
INPUTS = {
    "Cast": inputs(ANY),
    "Concat": st.one_of(st.lists(ANY, min_size=1, max_size=3), pairs(), tensors().map(lambda one: [one, one])),
    "Constant": st.just([]),
    "ConstantOfShape": inputs(lists()),
    "Gather": inputs(ANY, st.one_of(INDICES, lists(st.integers(-2, 2)))),
    "Identity": inputs(ANY),
    "ReduceL2": st.one_of(
        inputs(FLOATS, st.sampled_from([np.array([0]), np.array([-1])])), inputs(ANY, lists()), inputs(ANY)
    ),
    "Reshape": inputs(ANY, lists(st.integers(-1, 4))),
    "Slice": st.integers(2, 4).flatmap(lambda n: inputs(ANY, lists(FAR), lists(FAR), *[lists()] * (n - 2))),
    "Sqrt": inputs(ANY),
    "Squeeze": inputs(ANY, lists()),
    "Transpose": inputs(ANY),
    "Unsqueeze": inputs(ANY, lists()),
}
VALUES = st.sampled_from(
    [np.array([7]), np.array([1.5], dtype=np.float32), np.array([True]), np.arange(2), np.array(3)]
)
ATTRIBUTES = {
    "allowzero": st.integers(0, 2),
    "axis": st.integers(-3, 3),
    "keepdims": st.integers(0, 1),
    "perm": st.one_of(st.permutations(range(3)), st.permutations(range(2)), st.just([]), st.just([0, 0])),
    "to": st.sampled_from([*arithmetic.CASTS, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.BFLOAT16]),
    "value": st.one_of(VALUES, tensors()).map(numpy_helper.from_array),
}


def node_of(key, values, attributes):
    names = [f"i{k}" for k in range(len(values))]
    node = helper.make_node(key[0], names, ["o"])
    node.attribute.extend(
        onnx.helper.make_attribute(name, value, attr_type=arithmetic.ATTRIBUTES[name])
        for name, value in attributes.items()
    )
    return node


def answer_of(call):
    """The array, or None where the call is refused."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(call())
    except Exception:  # whatever a library raises is a refusal
        return None


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("key", RULES, ids=" ".join)
def test_a_rule_answers_and_refuses_as_the_reference(key):
    answered = []

    @settings(max_examples=100)
    @given(st.data())
    def compared(data):
        values = data.draw(INPUTS.get(key[0], pairs()), "values")
        attributes = {name: data.draw(ATTRIBUTES[name], name) for name in key[1:]}
        node = node_of(key, values, attributes)
        feeds = {f"i{k}": value for k, value in enumerate(values)}
        expected = answer_of(lambda: ReferenceEvaluator(node).run(None, feeds)[0])
        found = answer_of(lambda: result(node, values))
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            np.testing.assert_array_equal(found, expected)
            by_numpy = answer_of(lambda: arithmetic._by_numpy(node, values))
            answered.append(by_numpy is not None and by_numpy.dtype != object)

    compared()
    assert sum(answered) > 10  # by the rule itself, not by the reference in its place


@pytest.mark.parametrize(
    ("node", "values", "expected"),
    [
        (make("Pow", ["a", "b"], ["o"]), [np.array([3]), np.array([4])], [81]),
        (make("Max", ["a", "b"], ["o"]), [np.array([3]), np.array([4])], [4]),
        (make("Slice", ["a", "b", "c", "", "s"], ["o"]), [np.arange(5), *np.int64([[0], [5], [2]])], [0, 2, 4]),
        (make("Add", ["a", "b"], ["o"]), [np.array([3], dtype=np.uint8)] * 2, [6]),
    ],
    ids=["another operator", "of many inputs", "an input left out", "another kind of numbers"],
)  # fmt: skip
def test_what_has_no_rule_is_evaluated_by_the_reference(node, values, expected):
    assert arithmetic._by_numpy(node, values) is None
    np.testing.assert_array_equal(result(node, values), expected)


def test_an_attribute_of_another_kind_or_given_twice_has_no_rule():
    odd = helper.make_node("Transpose", ["a"], ["o"])
    odd.attribute.append(helper.make_attribute("perm", 0))
    twice = helper.make_node("Gather", ["a", "b"], ["o"], axis=0)
    twice.attribute.append(helper.make_attribute("axis", 1))
    assert arithmetic._by_numpy(odd, [np.arange(3)]) is None
    assert arithmetic._by_numpy(twice, [np.eye(2), np.array([0])]) is None


def test_sizes_of_a_net_are_computed_without_the_operators_of_the_reference():
    code = """
import sys
from onnx import helper
from tests.unit.models.graphs.test_operators import grown, node
from tradsys.models.graphs.sizes import numbers
shaped = [node("Shape", ["window"], ["n"]), node("Gather", ["n", "at"], ["f"], axis=0),
          node("Div", ["f", "two"], ["h"]), node("Concat", ["one", "h", "two"], ["s"], axis=0),
          node("Reshape", ["logit", "flat"], ["l"]), node("Expand", ["l", "s"], ["x"])]
model = grown(*shaped, constants={"at": [2], "two": [2], "one": [1], "flat": [-1, 1, 2]})
plain = numbers(grown(), 3, "g", "fix")
assert numbers(model, 3, "g", "fix") > plain
print([name for name in sys.modules if name.startswith("onnx.reference")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
