"""The 1-D ResNet and the temporal convolution net: against loops, for causality, and as ONNX graphs."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.models.test_onnx import LOOKBACK, parts
from tradsys.models.calibrators import Temperature
from tradsys.models.nets.resnet import KERNELS, ResNet
from tradsys.models.nets.resnet import Block as ResBlock
from tradsys.models.nets.tcn import Block as TcnBlock
from tradsys.models.nets.tcn import TemporalConvNet, levels_for, receptive_field
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import with_fitted
from tradsys.samples.windows import gather


def resnet(lookback=16, **options):
    torch.manual_seed(0)
    return ResNet(5, 3, lookback, **{"width": 6, "dropout": 0.0} | options).eval()


def tcn(lookback=16, **options):
    torch.manual_seed(0)
    return TemporalConvNet(5, 3, lookback, **{"width": 6, "dropout": 0.0} | options).eval()


NETS = [resnet, tcn]


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("lookback", [1, 2, 7, 16])
def test_shapes_and_gradients_reach_every_weight(make, lookback):
    net = make(lookback)
    window_NTF = torch.randn(4, lookback, 5)
    assert net.embed(window_NTF).shape == (4, net.embedding_dim)
    logits_NC = net(window_NTF)
    assert logits_NC.shape == (4, 3)
    F.cross_entropy(logits_NC, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_read_its_neighbours(make, training):
    """While it trains, too: no moment of a batch is in it."""
    net = make().train(training)
    window_NTF = torch.randn(6, 16, 5)
    torch.testing.assert_close(net(window_NTF)[2:3], net(window_NTF[2:3]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", NETS)
def test_every_bar_of_the_window_matters_and_so_does_their_order(make):
    """The receptive field, by the gradient of the embedding."""
    net = make(33)
    window_NTF = torch.randn(8, 33, 5, requires_grad=True)
    net.embed(window_NTF).square().sum().backward()
    assert (window_NTF.grad.abs().sum(dim=(0, 2)) > 0).all()
    swapped_NTF = window_NTF[:, [1, 0, *range(2, 33)]]
    assert (net(window_NTF) - net(swapped_NTF)).abs().max() > 1e-6


@pytest.mark.parametrize("make", NETS)
def test_a_window_of_another_shape_is_refused(make):
    with pytest.raises(ValueError, match=r"\[N, 16, 5\]"):
        make()(torch.randn(2, 15, 5))


# ------------------------------------------------------------------ resnet


def normalised(x_MT, weight_M, bias_M):
    """One sample, all channels and bars together."""
    z = (x_MT - x_MT.mean()) / np.sqrt(x_MT.var() + 1e-5)
    return z * weight_M[:, None] + bias_M[:, None]


def loop_conv(x_KT, weight_MKB, bias_M, before, after, dilation=1):
    """A convolution by its definition, zeros outside the window."""
    n_out, n_in, n_bars = weight_MKB.shape
    padded = np.pad(x_KT, ((0, 0), (before, after)))
    n_time = padded.shape[1] - (n_bars - 1) * dilation
    out = np.zeros((n_out, n_time))
    for m in range(n_out):
        for t in range(n_time):
            out[m, t] = bias_M[m]
            for k in range(n_in):
                for b in range(n_bars):
                    out[m, t] += weight_MKB[m, k, b] * padded[k, t + b * dilation]
    return out


def arrays(module):
    return module.weight.detach().double().numpy(), module.bias.detach().double().numpy()


@pytest.mark.parametrize("n_in", [3, 4])
def test_a_resnet_block_equals_loops(n_in):
    torch.manual_seed(1)
    block = ResBlock(n_in, 4)
    for norm in [*block.norms, block.norm_shortcut]:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x_KT = torch.randn(n_in, 11)
    y = x_KT.double().numpy()
    for bars, before, after, conv, norm in zip((8, 5, 3), (4, 2, 1), (3, 2, 1), block.convs, block.norms, strict=True):
        assert conv.kernel_size == (bars,)
        y = normalised(loop_conv(y, *arrays(conv), before, after), *arrays(norm))
        y = np.maximum(y, 0) if bars != 3 else y
    short = x_KT.double().numpy() if n_in == 4 else loop_conv(x_KT.double().numpy(), *arrays(block.shortcut), 0, 0)
    expected = np.maximum(y + normalised(short, *arrays(block.norm_shortcut)), 0)
    np.testing.assert_allclose(block(x_KT[None])[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_resnet_is_the_papers_net():
    net = ResNet(7, 2, 64)
    assert [block.convs[-1].out_channels for block in net.blocks] == [64, 128, 128]
    assert KERNELS == (8, 5, 3)
    assert net.embedding_dim == 128
    with pytest.raises(ValueError, match="width=0; it must be a whole number"):
        ResNet(7, 2, 64, width=0)


# ------------------------------------------------------------------ tcn


def test_a_state_knows_no_later_bar():
    net = tcn(32)
    window_NTF = torch.randn(3, 32, 5)
    for t in (1, 9, 31):
        changed_NTF = window_NTF.clone()
        changed_NTF[:, t:] += 1.0
        before, after = net.states(window_NTF), net.states(changed_NTF)
        torch.testing.assert_close(after[:, :, :t], before[:, :, :t], rtol=0, atol=0)
        assert (after[:, :, t] - before[:, :, t]).abs().max() > 1e-3


@pytest.mark.parametrize(("n_levels", "kernel_bars"), [(1, 2), (2, 3), (3, 2), (3, 4)])
def test_receptive_field_by_gradient(n_levels, kernel_bars):
    """In a window one bar longer than the field, the first bar is the only one that says nothing."""
    reach = receptive_field(n_levels, kernel_bars)
    net = tcn(reach, n_levels=n_levels, kernel_bars=kernel_bars)
    net.lookback = reach + 1
    window_NTF = torch.randn(64, reach + 1, 5, requires_grad=True)
    net.embed(window_NTF).square().sum().backward()
    reported = window_NTF.grad.abs().sum(dim=(0, 2)) > 0
    assert not reported[0]
    assert reported[1:].all()


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("n_in", [3, 4])
def test_a_tcn_block_equals_loops(dilation, n_in):
    torch.manual_seed(2)
    block = TcnBlock(n_in, 4, 3, dilation, 0.0).eval()
    x_KT = torch.randn(n_in, 12)
    y = x_KT.double().numpy()
    for conv in (block.first, block.second):
        y = np.maximum(loop_conv(y, *arrays(conv), 2 * dilation, 0, dilation), 0)
    short = x_KT.double().numpy() if n_in == 4 else loop_conv(x_KT.double().numpy(), *arrays(block.shortcut), 0, 0)
    np.testing.assert_allclose(block(x_KT[None])[0].detach().numpy(), np.maximum(y + short, 0), rtol=1e-5, atol=1e-5)


def test_weights_are_a_direction_and_a_length():
    """Salimans and Kingma 2016, eq. 2: w = g v / |v|, per output channel."""
    conv = TcnBlock(3, 4, 3, 1, 0.0).first
    length, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    expected = length * direction / direction.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(conv.weight, expected)


@pytest.mark.parametrize(
    ("lookback", "kernel_bars", "levels"), [(1, 3, 1), (5, 3, 1), (6, 3, 2), (64, 3, 5), (63, 2, 5)]
)
def test_depth_is_the_least_that_sees_the_window(lookback, kernel_bars, levels):
    assert levels_for(lookback, kernel_bars) == levels
    assert tcn(lookback, kernel_bars=kernel_bars).n_levels == levels
    assert receptive_field(levels, kernel_bars) >= lookback
    assert levels == 1 or receptive_field(levels - 1, kernel_bars) < lookback


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_levels": 2}, "2 levels of 3 bars see 13 bars of a window of 16; .* use n_levels=3"),
        ({"n_levels": 0}, r"tcn: n_levels=0; .*\[1, inf\)"),
        ({"kernel_bars": 1}, r"tcn: kernel_bars=1; .*\[2, inf\)"),
        ({"width": 0}, "tcn: width=0; "),
        ({"dropout": 1.0}, r"tcn: dropout=1.0; .*\[0, 1\)"),
    ],
)
def test_impossible_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        tcn(16, **options)


# ------------------------------------------------------------------ as a graph


@pytest.mark.parametrize("kind", [ResNet, TemporalConvNet])
def test_one_graph_from_raw_features_to_probability(kind, tmp_path):
    factory = partial(kind, width=8, dropout=0.1)
    model = SequenceModel(
        net=factory, module=LitClassifier, trainer=TrainerSettings(), lookback=LOOKBACK, batch_size=64
    )
    torch.manual_seed(3)
    net = factory(n_features=4, n_classes=2, lookback=LOOKBACK)
    torch.nn.init.normal_(net.head.weight, std=1.0)
    model = with_fitted(model, {"net_": net.eval()})
    samples, scaler, score_NC, calibrator = parts(model, Temperature())
    path, table = tmp_path / "model.onnx", samples.table
    worst = export_onnx(path, scaler=scaler, model=model, calibrator=calibrator, table=table, rows=samples.rows)
    assert worst < 1e-5
    score, probability = OnnxModel.load(path).run(gather(table.values, samples.rows, LOOKBACK))
    np.testing.assert_allclose(score, score_NC, atol=1e-5)
    np.testing.assert_allclose(probability, calibrator.apply(score_NC), atol=1e-5)
    assert score[:, 1].std() > 0.01
