from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import LOOKBACK, make_model, make_samples, split
from tests.unit.models.test_supcon import make_model as make_supcon
from tradsys.models.linear import LogisticRegression
from tradsys.models.nets.resnet import ResNet
from tradsys.models.nets.tcn import TemporalConvNet
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.nets.two_scales import TwoScales
from tradsys.models.nets.wide import Wide
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.probe import LinearProbe
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.transforms import RobustScaler

NETS = {
    "transformer": partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1),
    "two_scales": partial(TwoScales, fine=3, coarse=2, d_model=8, n_heads=2),
    "tcn": partial(TemporalConvNet, width=8),
    "resnet": partial(ResNet, width=4),
}


@pytest.fixture(scope="module")
def data():
    return split(make_samples(500))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_net_starts_at_its_linear_twin(data, net, n_classes):
    """Before training the sum equals logistic regression on the last row, class by class, and its deep path learns."""
    train, _ = data
    if n_classes == 3:
        train = replace(train, y=(train.rows + (train.y > 0)) % 3)
    wide = Wide(net(n_features=3, n_classes=n_classes, lookback=LOOKBACK)).eval()
    row_NF, y_N = torch.from_numpy(train.table.values[train.rows]), torch.from_numpy(train.y)
    wide.start_at_line(row_NF, y_N, torch.from_numpy(train.weight), C=0.1, gamma=0.0)
    twin = LogisticRegression(C=0.1).fit(train, train)
    window_NTF = torch.randn(40, LOOKBACK, 3)
    window_NTF[:, -1] = row_NF[:40]
    scores_NC = wide(window_NTF)
    got_NC = scores_NC.double().softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(got_NC, twin.predict_proba(train.table, train.rows[:40]), rtol=0, atol=1e-5)
    torch.nn.functional.cross_entropy(scores_NC, y_N[:40]).backward()
    assert wide.deep.head.weight.grad.abs().max() > 0
    assert wide.wide.weight.grad.abs().max() > 0


def test_the_start_is_the_optimum_of_the_focal_loss_and_balanced_classes_in_use(data):
    train, valid = data
    train = train.take(np.flatnonzero((train.y == 1) | (train.rows % 3 == 0)))
    for class_weight in (None, "balanced"):
        module = partial(LitClassifier, gamma=2.0, lr=1e-12, weight_decay=0.0, class_weight=class_weight)
        fitted = replace(make_model(max_epochs=1), wide=True, module=module).fit(train, valid)
        twin = LinearProbe(C=0.1, gamma=2.0, class_weight=class_weight).fit(train, valid)
        got_NC = fitted.predict_proba(valid.table, valid.rows)
        np.testing.assert_allclose(got_NC, twin.predict_proba(valid.table, valid.rows), rtol=0, atol=1e-5)


def test_a_linear_market_costs_a_wide_net_nothing():
    """Where the last row says all, a plain net is worse than logistic regression and a wide one is not."""
    samples = make_samples(500)
    x_N = samples.table.values[samples.rows]
    noise = np.random.default_rng(1).logistic(size=len(samples))
    train, valid = split(replace(samples, y=(x_N @ [0.8, -0.5, 0.3] + noise > 0).astype(np.int64)))

    def logloss(model):
        p_NC = model.fit(train, valid).predict_proba(valid.table, valid.rows)
        return -np.average(np.log(p_NC[np.arange(len(valid)), valid.y]), weights=valid.weight)

    module = partial(LitClassifier, gamma=0.0, lr=1e-3)
    plain = replace(make_model(max_epochs=3), module=module)
    twin = logloss(LogisticRegression(C=0.1))
    assert logloss(replace(plain, wide=True)) < twin + 0.003 < logloss(plain)
    # a path that starts at zero learns too, yet not within three epochs
    assert twin + 0.003 < logloss(replace(plain, wide=True, wide_C=None))


def test_wide_is_part_of_a_fit_and_a_plain_net_is_as_it_was(data):
    model = make_model()
    assert model.fingerprint(*data) == replace(model, wide_C=None).fingerprint(*data)
    assert replace(model, wide=True).fingerprint(*data) != model.fingerprint(*data)
    with pytest.raises(ValueError, match="wide_C=0"):
        replace(model, wide_C=0.0)


def test_a_wide_supcon_probe_reads_embedding_and_last_row(data):
    train, valid = data
    plain = make_supcon()
    fitted = replace(plain, wide=True).fit(train, valid)
    assert fitted.probe_.names_[-3:] == train.table.names
    assert fitted.probe_.coef_.shape == (1, 8 + 3)
    same = plain.fit(train, valid)
    np.testing.assert_array_equal(
        fitted.embed(valid.table, valid.rows), same.embed(valid.table, valid.rows)
    )  # one encoder either way


@pytest.mark.parametrize("kind", ["sequence", "supcon"])
def test_one_graph_holds_both_paths(tmp_path, data, kind):
    train, valid = data
    scaler = RobustScaler(clip=3.0).fit(train.table, train.rows)
    model: SequenceModel = replace(make_model(max_epochs=1) if kind == "sequence" else make_supcon(), wide=True)
    seen = scaler.apply(train.table)
    fitted = model.fit(train.on(seen), valid.on(seen))
    path = tmp_path / "model.onnx"
    rows = valid.rows[:60]
    worst = export_onnx(path, scaler=scaler, model=fitted, calibrator=None, table=train.table, rows=rows)
    assert worst < 1e-5
    got_NC, _ = OnnxModel.load(path).predict(train.table, rows)
    np.testing.assert_allclose(got_NC, fitted.predict_proba(seen, rows), rtol=0, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
