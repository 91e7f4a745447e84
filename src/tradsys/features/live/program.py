"""Features' polars expressions as one list of steps; a step shared by several features is computed once.

The expressions stay the only place where a feature is defined. They are read from polars' JSON form. An expression
with an unknown part raises `UnknownStepError`; its feature set is then computed as in batches.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tradsys.features.kernels import kernel_of

FLOAT, INT, BOOL, SCALAR = "float", "int", "bool", "scalar"
ARITHMETIC = ("Plus", "Minus", "Multiply", "TrueDivide")
COMPARISONS = ("Gt", "GtEq", "Lt", "LtEq", "Eq", "NotEq")
LOGIC = ("And", "Or")
PLAIN = {
    "Abs": "abs",
    "Negate": "negate",
    "Sign": "sign",
    "Log1p": "log1p",
    "MaxHorizontal": "fmax",
    "MinHorizontal": "fmin",
}
NATURAL = 2.718281828459045


class UnknownStepError(Exception):
    """An expression holds something that has no row-by-row form here.

    The message names it.
    """


@dataclass(frozen=True)
class Node:
    """One step. op: its name.

    inputs: indices of earlier steps. params: other parameters. kind: type of its values.
    """

    op: str
    inputs: tuple[int, ...] = ()
    params: tuple[Any, ...] = ()
    kind: str = FLOAT


class Program:
    """Steps in an order in which each comes after its inputs.

    Equal steps are kept once. nodes: the steps. outputs: index of each expression's value.
    """

    def __init__(self, expressions: Sequence[pl.Expr]) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, int] = {}
        self.outputs = [self._add_expression(expression) for expression in expressions]

    def _add_expression(self, expression: pl.Expr) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # polars warns that the form may change, and that kernels are functions
            tree = json.loads(expression.meta.serialize(format="json"))
        self._has_infinity = "inf" in str(expression)  # JSON writes it as it writes NaN
        at = self._add(tree)
        if self.nodes[at].kind in (BOOL, SCALAR):
            raise UnknownStepError(f"an expression of {self.nodes[at].kind} values")
        return at

    def _node(self, op: str, inputs: Sequence[int] = (), params: Sequence[Any] = (), kind: str = FLOAT) -> int:
        node = Node(op, tuple(inputs), tuple(params), kind)
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def _kinds(self, inputs: Sequence[int]) -> list[str]:
        return [self.nodes[at].kind for at in inputs]

    def _add(self, tree: Mapping[str, Any]) -> int:
        if len(tree) != 1:
            raise UnknownStepError(f"a step of {sorted(tree)}")
        ((name, body),) = tree.items()
        makers = {
            "Column": self._column,
            "KeepName": self._add,
            "Literal": self._literal,
            "BinaryExpr": self._binary,
            "Ternary": self._ternary,
            "Cast": self._cast,
            "Function": self._function,
            "AnonymousFunction": self._kernel,
        }
        if name not in makers:
            raise UnknownStepError(f"a step {name!r}")
        return makers[name](body)

    def _column(self, name: Any) -> int:
        if name == "time":
            raise UnknownStepError("a time that is read as it is")
        return self._node("column", params=[str(name)])

    def _literal(self, body: Mapping[str, Any]) -> int:
        ((kind, value),) = body.get("Dyn", {"": None}).items()
        if kind not in ("Float", "Int") or (value is None and self._has_infinity):
            raise UnknownStepError(f"a literal {body}")
        return self._node("literal", params=["nan" if value is None else float(value)], kind=SCALAR)

    def _number(self, tree: Mapping[str, Any]) -> float:
        """The value of a literal."""
        node = self.nodes[self._add(tree)]
        if node.op != "literal":
            raise UnknownStepError("a parameter that is no literal")
        return float(node.params[0])

    def _binary(self, body: Mapping[str, Any]) -> int:
        inputs, op = [self._add(body["left"]), self._add(body["right"])], body["op"]
        kinds = self._kinds(inputs)
        if op in ARITHMETIC and (FLOAT in kinds) and BOOL not in kinds:
            return self._node(op, inputs)
        if op in COMPARISONS and BOOL not in kinds and set(kinds) != {SCALAR}:
            return self._node(op, inputs, kind=BOOL)
        if op in LOGIC and set(kinds) == {BOOL}:
            return self._node(op, inputs, kind=BOOL)
        raise UnknownStepError(f"{op} of {kinds}")

    def _ternary(self, body: Mapping[str, Any]) -> int:
        inputs = [self._add(body[part]) for part in ("predicate", "truthy", "falsy")]
        kinds = self._kinds(inputs)
        if kinds[0] != BOOL or not set(kinds[1:]) <= {FLOAT, SCALAR}:
            raise UnknownStepError(f"a choice between {kinds}")
        return self._node("where", inputs)

    def _cast(self, body: Mapping[str, Any]) -> int:
        at, kind = self._add(body["expr"]), body["dtype"].get("Literal")
        if kind == "Float64":
            return self._node("float", [at])
        if kind == "UInt32" and self.nodes[at].kind == BOOL:
            return self._node("float", [at], kind=INT)
        raise UnknownStepError(f"a cast to {body['dtype']}")

    def _function(self, body: Mapping[str, Any]) -> int:
        function, trees = body["function"], body["input"]
        if isinstance(function, str):
            name, options = function, None
        else:
            ((name, options),) = function.items()
        if name == "TemporalExpr":
            if trees != [{"Column": "time"}] or not isinstance(options, str):
                raise UnknownStepError(f"the part {options} of a time")
            return self._node("time", params=[options], kind=INT)
        if name in PLAIN:
            return self._node(PLAIN[name], self._floats(trees))
        makers = {
            "Log": self._log,
            "Diff": self._lag,
            "Shift": self._lag,
            "Clip": self._clip,
            "Round": self._round,
            "Pow": self._power,
            "Trigonometry": self._wave,
            "RollingExpr": self._rolling,
        }
        if name not in makers:
            raise UnknownStepError(f"a function {name!r}")
        return makers[name](name, options, trees)

    def _floats(self, trees: Sequence[Mapping[str, Any]], also: Sequence[str] = (SCALAR,)) -> list[int]:
        inputs = [self._add(tree) for tree in trees]
        kinds = self._kinds(inputs)
        if kinds[0] != FLOAT or not set(kinds) <= {FLOAT, *also}:
            raise UnknownStepError(f"a function of {kinds}")
        return inputs

    def _log(self, _name: str, _options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        if self._number(trees[1]) != NATURAL:
            raise UnknownStepError("a logarithm to another base")
        return self._node("log", self._floats(trees[:1]))

    def _lag(self, name: str, options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        rows = self._number(trees[1])
        if rows < 0 or rows != int(rows) or options not in (None, "Ignore"):
            raise UnknownStepError(f"{name} by {rows}")
        inputs = self._floats(trees[:1])
        if rows == 0:
            return inputs[0] if name == "Shift" else self._node("Minus", [inputs[0], inputs[0]])
        before = self._node("shift", inputs, [int(rows)])
        return before if name == "Shift" else self._node("Minus", [inputs[0], before])

    def _clip(self, _name: str, options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        return self._node("clip", self._floats(trees), [options["has_min"], options["has_max"]])

    def _round(self, _name: str, options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        if options["mode"] != "HalfToEven":
            raise UnknownStepError(f"rounding by {options['mode']}")
        return self._node("round", self._floats(trees), [int(options["decimals"])])

    def _power(self, _name: str, options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        if options == "Sqrt":
            return self._node("sqrt", self._floats(trees))
        if options != "Generic":
            raise UnknownStepError(f"a power {options}")
        return self._node("power", self._floats(trees[:1]), [self._number(trees[1])])

    def _wave(self, _name: str, options: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        if options not in ("Sin", "Cos"):
            raise UnknownStepError(f"{options} of an angle")
        return self._node(options.lower(), self._floats(trees))

    def _rolling(self, _name: str, body: Any, trees: Sequence[Mapping[str, Any]]) -> int:
        name, options = body["function"], body["options"]
        size = options["window_size"]
        counted = self._add(trees[0]) if len(trees) == 1 else None
        if counted is None or options["center"] or options["min_periods"] != size:
            raise UnknownStepError(f"a rolling {name} with {options}")
        special = options["fn_params"] or {}
        at = self.nodes[counted]
        if name == "Sum" and at.kind in (FLOAT, INT) and not special:
            weights = options["weights"]
            return self._node("sum", [counted], [size, None if weights is None else tuple(weights)], at.kind)
        if at.kind != FLOAT or options["weights"] is not None:
            raise UnknownStepError(f"a rolling {name} of {at.kind} values")
        if name in ("Max", "Min") and not special:
            return self._node(name.lower(), [counted], [size])
        if name in ("Std", "Var") and set(special) == {"Var"}:
            return self._node(name.lower(), [counted], [size, special["Var"]["ddof"]])
        if name == "Skew" and special == {"Skew": {"bias": True}}:
            return self._node("skew", [counted], [size])
        if name == "Kurtosis" and special == {"Kurtosis": {"fisher": True, "bias": True}}:
            return self._node("kurtosis", [counted], [size])
        if name == "Rank" and special["Rank"]["method"] == "Average":
            return self._node("rank", [counted], [size])
        raise UnknownStepError(f"a rolling {name} with {special}")

    def _kernel(self, body: Mapping[str, Any]) -> int:
        trees = body["input"]
        named = trees[0].get("Alias") if len(trees) == 1 else None
        found = None if named is None else kernel_of(named[1])
        if named is None or found is None:
            raise UnknownStepError("a Python function without a row-by-row form")
        name, parameters = found
        return self._node("kernel", self._floats(named[:1]), [name, tuple(sorted(parameters.items()))])
