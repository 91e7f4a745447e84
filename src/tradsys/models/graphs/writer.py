"""An ONNX graph written operator by operator: arrays become constants, results get names of their own."""

from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from tradsys.core.tables import Array

OPSET = 18  # the lowest with LayerNormalization and everything else in use: any recent runtime reads it
WINDOW = "window"  # the input's name


class GraphWriter:
    """Nodes and constants of a graph under construction, from the input `window` on.

    n_features: columns F of a window.
    Source: the operators of https://onnx.ai/onnx/operators, version 18.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str | Array, **attributes: Any) -> str:
        """Adds an operator on named values and constants; returns its result's name."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        made = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [made], name=made, **attributes))
        return made

    def nest(self, net: onnx.ModelProto, read: str) -> str:
        """Adds a graph of one input and one output; returns the output's name.

        read: the value that becomes its input.
        """
        inner = compose.add_prefix(net, f"net_{len(self.nodes)}/").graph
        self.nodes.append(helper.make_node("Identity", [read], [inner.input[0].name], name=inner.input[0].name))
        self.nodes.extend(inner.node)
        self.constants.extend(inner.initializer)
        return str(inner.output[0].name)

    def model(self, outputs: dict[str, str], lookback: int, n_classes: int) -> onnx.ModelProto:
        """The graph from `window` float32 [N, T, F] to outputs float64 [N, C], checked.

        outputs: the values by the names under which they leave. lookback: T.
        """
        for name, value in outputs.items():
            # a node of its own: without a calibrator, two outputs of one value would share a name
            self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        kind = onnx.TensorProto
        read = helper.make_tensor_value_info(WINDOW, kind.FLOAT, ["N", lookback, self.n_features])
        made = [helper.make_tensor_value_info(name, kind.DOUBLE, ["N", n_classes]) for name in outputs]
        graph = helper.make_graph(self.nodes, "tradsys", [read], made, self.constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]), producer_name="tradsys"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _constant(self, values: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name
