"""Graphs of nets, registered with `onnx_export.scores`, which loads this module for nets only."""

import copy

import torch
from torch import Tensor, nn

from tradsys.core.errors import BundleError
from tradsys.models.onnx_export import scores
from tradsys.models.sequence import SequenceModel
from tradsys.models.supcon import SupConModel


@scores.register
def _(part: SequenceModel) -> nn.Module:
    if part.net_ is None:
        raise BundleError("onnx: the sequence model has no weights; only a fitted model is exported; call fit")
    return _Softmax(copy.deepcopy(part.net_))


@scores.register
def _(part: SupConModel) -> nn.Module:
    if part.net_ is None or part.probe_ is None:
        raise BundleError("onnx: the contrastive model has no encoder or no probe; only a fitted model is exported")
    return _Probed(copy.deepcopy(part.net_), scores(part.probe_), wide=part.wide)


class _Softmax(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.cpu().eval()

    def forward(self, window_NTF: Tensor) -> Tensor:
        return self.net(window_NTF).double().softmax(dim=1)


class _Probed(nn.Module):
    """An encoder with a probe on its embedding (`wide`: and last row), passed as a window of one row."""

    def __init__(self, net: nn.Module, probe: nn.Module, *, wide: bool) -> None:
        super().__init__()
        self.net, self.probe, self.wide = net.cpu().eval(), probe, wide

    def forward(self, window_NTF: Tensor) -> Tensor:
        read_ND = self.net.embed(window_NTF)  # type: ignore[operator]
        if self.wide:
            read_ND = torch.cat([read_ND, window_NTF[:, -1]], dim=1)
        return self.probe(read_ND.unsqueeze(1))
