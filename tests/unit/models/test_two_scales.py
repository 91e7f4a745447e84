"""Patches, two time scales and attention across coins: against loops, for causality, and as ONNX graphs."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.models.test_onnx import LOOKBACK, parts
from tradsys.core.errors import CombinationError
from tradsys.models.calibrators import Temperature
from tradsys.models.nets.cross_asset import CrossAsset
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.nets.two_scales import TwoScales
from tradsys.models.nets.wide import Wide
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import with_fitted


def make(lookback=12, **options):
    torch.manual_seed(0)
    return TwoScales(5, 3, lookback, **{"fine": 4, "coarse": 3, "d_model": 8, "n_heads": 2, "dropout": 0.0} | options)


def test_shapes_and_gradients_reach_every_weight():
    net, window_NTF = make(), torch.randn(4, 12, 5)
    assert net.embed(window_NTF).shape == (4, net.embedding_dim) == (4, 16)
    F.cross_entropy(net(window_NTF), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_fine_part_reads_the_last_bars_and_the_coarse_part_means_of_blocks():
    net, window_NTF = make().eval(), torch.randn(4, 12, 5)
    blocks_NTF = torch.stack([window_NTF[:, 3 * k : 3 * k + 3].mean(dim=1) for k in range(4)], dim=1)
    expected_ND = torch.cat([net.fine.embed(window_NTF[:, 8:]), net.coarse.embed(blocks_NTF)], dim=1)
    torch.testing.assert_close(net.embed(window_NTF), expected_ND)


def test_an_early_bar_moves_the_coarse_part_alone_and_the_decision_bar_both():
    net, window_NTF = make().eval(), torch.randn(1, 12, 5)
    for bar, moved in ((0, (False, True)), (11, (True, True))):
        changed_NTF = window_NTF.clone()
        changed_NTF[:, bar] += torch.randn(5)
        gap_D = (net.embed(changed_NTF) - net.embed(window_NTF))[0].abs()
        assert (bool(gap_D[:8].max() > 1e-6), bool(gap_D[8:].max() > 1e-6)) == moved


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coarse": 5}, "lookback=12 with coarse=5 leaves 2 bars over.*set model.lookback=15"),
        ({"fine": 13}, "fine=13 bars of a window of 12"),
        ({"d_model": 6, "n_heads": 4}, "n_heads must divide"),
    ],
)
def test_impossible_settings_are_named(changes, words):
    with pytest.raises(CombinationError, match=words):
        make(**changes)


def test_a_window_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\[N, 12, 5\]"):
        make()(torch.randn(2, 11, 5))


def cross(**options):
    torch.manual_seed(0)
    return CrossAsset(11, 2, 6, **{"places": 3, "values": 3, "d_model": 8, "n_heads": 2, "dropout": 0.0} | options)


def test_coins_have_no_places_and_only_their_values_at_the_decision_bar_count():
    net, window_NTF = cross().eval(), torch.randn(4, 6, 11)
    swapped_NTF = window_NTF.clone()
    swapped_NTF[:, :, 2:] = window_NTF[:, :, [8, 9, 10, 2, 3, 4, 5, 6, 7]]
    torch.testing.assert_close(net(swapped_NTF), net(window_NTF))
    earlier_NTF = window_NTF.clone()
    earlier_NTF[:, :-1, 2:] += 1.0
    torch.testing.assert_close(net(earlier_NTF), net(window_NTF))
    for column in (0, 2, 10):  # own, first and last of the others
        changed_NTF = window_NTF.clone()
        changed_NTF[:, -1, column] += 1.0
        assert (net(changed_NTF) - net(window_NTF)).abs().max() > 1e-4
    F.cross_entropy(cross()(window_NTF), torch.tensor([0, 1, 1, 0])).backward()
    with pytest.raises(ValueError, match=r"\[N, 6, 11\]"):
        net(torch.randn(2, 5, 11))
    with pytest.raises(CombinationError, match="4 places of 3 values among 11 features leave none"):
        cross(places=4)


def right_after(n_steps, net, window_NTF, y_N):
    """Share of the second half that the net names right after so many steps on the first."""
    half = len(y_N) // 2
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(n_steps):
        optimiser.zero_grad()
        F.cross_entropy(net(window_NTF[:half]), y_N[:half]).backward()
        optimiser.step()
    return (net.eval()(window_NTF[half:]).argmax(dim=1) == y_N[half:]).float().mean()


def test_what_only_the_other_coins_know_is_learnt():
    """The class is the sign of the other coins' mean return; the own window is noise."""
    generator = torch.Generator().manual_seed(0)
    window_NTF = torch.randn(512, 6, 11, generator=generator)
    y_N = (window_NTF[:, -1, [2, 5, 8]].mean(dim=1) > 0).long()
    assert right_after(60, cross(), window_NTF, y_N) > 0.85


FACTORIES = {
    "patches": partial(TransformerEncoder, d_model=16, n_heads=2, n_layers=2, ffn_mult=2, patch=3),
    "two_scales": partial(TwoScales, fine=4, coarse=3, d_model=8, n_heads=2),
    "cross_asset": partial(CrossAsset, places=1, values=3, d_model=8, n_heads=2),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("wide", [False, True])
def test_the_graph_answers_as_the_parts_do(tmp_path, factory, wide):
    model = SequenceModel(
        net=factory, module=LitClassifier, trainer=TrainerSettings(), lookback=LOOKBACK, batch_size=64, wide=wide
    )
    torch.manual_seed(0)
    net = factory(n_features=4, n_classes=2, lookback=LOOKBACK)
    net = Wide(net) if wide else net
    for head in (net.deep.head, net.wide) if wide else (net.head,):
        torch.nn.init.normal_(head.weight, std=0.3)
    model = with_fitted(model, {"net_": net.eval()})
    samples, scaler, score_NC, calibrator = parts(model, Temperature())
    path = tmp_path / "model.onnx"
    rows = samples.rows[::3]
    worst = export_onnx(path, scaler=scaler, model=model, calibrator=calibrator, table=samples.table, rows=rows)
    assert worst < 1e-5
    got_NC, _ = OnnxModel.load(path).predict(samples.table, samples.rows)
    np.testing.assert_allclose(got_NC, score_NC, rtol=0, atol=1e-6)
