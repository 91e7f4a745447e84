"""Graphs of nets, traced by torch; registered with `onnx_export.scores`, which loads this module for nets only."""

import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tradsys.core.errors import BundleError
from tradsys.models.graphs.writer import OPSET, GraphWriter
from tradsys.models.onnx_export import LAST, scores
from tradsys.models.sequence import SequenceModel
from tradsys.models.supcon import SupConModel


@scores.register
def _(part: SequenceModel, graph: GraphWriter, window: str) -> str:
    if part.net_ is None:
        raise BundleError("onnx: the sequence model has no weights; only a fitted model is exported; call fit")
    logits = graph.nest(_traced(copy.deepcopy(part.net_), part.lookback, graph.n_features), window)
    return graph.add("Softmax", graph.add("Cast", logits, to=onnx.TensorProto.DOUBLE), axis=1)


@scores.register
def _(part: SupConModel, graph: GraphWriter, window: str) -> str:
    """The probe reads an embedding (`wide`: and the last row) as a window of one row."""
    if part.net_ is None or part.probe_ is None:
        raise BundleError("onnx: the contrastive model has no encoder or no probe; only a fitted model is exported")
    encoder = _Encoder(copy.deepcopy(part.net_))
    read = graph.nest(_traced(encoder, part.lookback, graph.n_features), window)
    if part.wide:
        read = graph.add("Concat", read, graph.add("Gather", window, LAST, axis=1), axis=1)
    return scores(part.probe_, graph, graph.add("Unsqueeze", read, np.array([1])))


class _Encoder(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, window_NTF: Tensor) -> Tensor:
        embedding_ND: Tensor = self.net.embed(window_NTF)  # type: ignore[operator]
        return embedding_ND


def _traced(net: nn.Module, lookback: int, n_features: int) -> onnx.ModelProto:
    """The graph of a net from `window` [N, T, F] to `read` [N, D], in float32."""
    example_NTF = torch.zeros(2, lookback, n_features)  # two samples: one would become a constant
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "net.onnx"
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)
        torch.onnx.export(
            net.cpu().eval(),
            (example_NTF,),
            path,
            dynamo=False,
            input_names=["window"],
            output_names=["read"],
            dynamic_axes={name: {0: "N"} for name in ("window", "read")},
            opset_version=OPSET,
        )
        return onnx.load(path)
