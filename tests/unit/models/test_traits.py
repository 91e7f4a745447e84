"""Embeddings of slow traits: by hand, untouched by scalers, one graph, and nothing for a class that training lacks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.models.test_onnx import LOOKBACK, parts
from tests.unit.models.test_sequence import make_model, make_samples, split
from tests.unit.models.test_two_scales import right_after
from tests.unit.models.training.stacks.test_stack import assert_same
from tradsys.core.errors import CombinationError
from tradsys.core.tables import FeatureTable, trait_classes
from tradsys.models.boosting import LightGbm
from tradsys.models.calibrators import Temperature
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.linear import LogisticRegression
from tradsys.models.nets.tcn import TemporalConvNet
from tradsys.models.nets.traits import WithTraits
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.nets.two_scales import TwoScales
from tradsys.models.nets.wide import Wide
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.sequence import SequenceModel
from tradsys.models.supcon import SupConModel
from tradsys.models.training.augment import Jitter, Views
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.lit_supcon import LitSupCon
from tradsys.models.training.pretraining import MaskedBars
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import RobustScaler, with_fitted
from tradsys.research.pipeline.requirements import check_part

SMALL = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.0)
TRAITS = ("trait_vol_336_of_3", "trait_age_class_of_4")


def make(net=SMALL, lookback=6, **options):
    torch.manual_seed(0)
    return WithTraits(5, 2, lookback, **{"classes": (3, 4), "net": net, "width": 2} | options)


def moved(net):
    """Rows away from zero, as training would leave them."""
    with torch.no_grad():
        for row in net.rows:
            row.normal_()
    return net


def windows(codes, lookback=6):
    torch.manual_seed(1)
    window_NTF = torch.randn(len(codes), lookback, 5)
    window_NTF[:, :, 3:] = torch.tensor(codes, dtype=torch.float32).unsqueeze(1)
    return window_NTF


def coded(samples, codes_K=((1, 2, 3), (0, 1, 4))):
    """The samples with two columns of codes on the right, by bar."""
    rng = np.random.default_rng(0)
    table = samples.table
    columns = [rng.choice(codes, len(table)).astype(np.float32) for codes in codes_K]
    values = np.column_stack([table.values, *columns])
    made = FeatureTable(table.symbol, table.time, table.segment, values, (*table.names, *TRAITS), table.symbols)
    return replace(samples, table=made)


@pytest.fixture(scope="module")
def data():
    return split(coded(make_samples()))


def traits_model(net=SMALL, module=LitClassifier, wide=False, seed=3, **trainer):
    model = make_model(**trainer)
    return replace(model, net=traits_of(net), module=module, wide=wide, seed=seed)


def traits_of(net=SMALL):
    return partial(WithTraits, classes=(3, 4), width=2, net=net)


def test_the_inner_net_reads_the_class_rows_beside_the_other_features():
    net, window_NTF = moved(make()).eval(), windows([(1, 4), (3, 1), (2, 2)])
    for n, (vol, age) in enumerate(((1, 4), (3, 1), (2, 2))):
        row_E = torch.cat([net.rows[0][vol - 1], net.rows[1][age - 1]])
        seen_1TF = torch.cat([window_NTF[n : n + 1, :, :3], row_E.expand(1, 6, 4)], dim=2)
        torch.testing.assert_close(net.embed(window_NTF[n : n + 1]), net.net.embed(seen_1TF))
    torch.testing.assert_close(net(window_NTF), net.head(net.embed(window_NTF)))


def test_gradients_reach_every_weight():
    net = make()
    F.cross_entropy(net(windows([(1, 1), (2, 2), (3, 3), (1, 4)])), torch.tensor([0, 1, 1, 0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(row.grad.abs().sum(dim=1).min() > 0 for row in net.rows)


def test_only_the_decision_bars_codes_count():
    net, window_NTF = moved(make()).eval(), windows([(1, 4), (3, 1)])
    earlier_NTF = window_NTF.clone()
    earlier_NTF[:, :-1, 3:] = 2.0
    torch.testing.assert_close(net(earlier_NTF), net(window_NTF))
    assert (net(windows([(2, 4), (3, 2)])) - net(window_NTF)).abs().min() > 1e-5


@pytest.mark.parametrize("code", [0, -1, 9])
def test_a_code_that_is_no_class_adds_nothing(code):
    net = moved(make()).eval()
    assert torch.equal(net.embedded(torch.tensor([[float(code), float(code)]])), torch.zeros(1, 4))


def test_a_class_that_training_never_had_is_read_as_one_that_is_not_known(data):
    """Class 2 and 3 of age are in no row; their rows stay at zero through weight decay and averaging."""
    module = partial(LitClassifier, lr=0.02, weight_decay=0.1, ema=0.9)
    model = traits_model(module=module, max_epochs=2).fit(*data)
    vol_ME, age_ME = model.net_.rows
    assert vol_ME.abs().sum(dim=1).min() > 1e-4
    assert torch.equal(age_ME[1:3], torch.zeros(2, 2))
    assert age_ME[[0, 3]].abs().sum(dim=1).min() > 1e-4
    table = data[1].table
    answers = [model.predict_proba(_with_age(table, code), data[1].rows) for code in (0, 2, 3)]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])
    assert np.abs(answers[0] - model.predict_proba(_with_age(table, 4), data[1].rows)).max() > 1e-5


def _with_age(table, code):
    values = table.values.copy()
    values[:, -1] = code
    return table.with_values(values)


def test_what_only_a_trait_tells_is_learnt():
    """The sign of the first feature is the class, turned around for names of the trait's third class."""
    torch.manual_seed(0)
    code_N = torch.randint(1, 4, (1024,))
    window_NTF = windows([(int(c), 1) for c in code_N])
    y_N = ((window_NTF[:, -1, 0] > 0) ^ (code_N == 3)).long()
    assert right_after(150, make(), window_NTF, y_N) > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": (3, 4, 2, 2, 2)}, "5 traits among 5 features leave no other"),
        ({"classes": ()}, "one number of at least 2 a trait"),
        ({"classes": (3, 1)}, "one number of at least 2 a trait"),
        ({"width": 0}, "width"),
    ],
)
def test_impossible_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        make(**changes)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "b", "c"), "trait columns none"),
        (("a", *TRAITS[::-1]), "in this order"),
        ((*TRAITS, "a"), "they must be the last ones"),
        (("a", TRAITS[0], "trait_age_class_of_6"), r"classes=\[3, 4\]"),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_columns_that_are_not_the_nets_traits_are_refused_before_a_fit(names, words, wide):
    model = traits_model(wide=wide)
    with pytest.raises(CombinationError, match=words):
        model.net_for(names, 2)


def test_a_member_that_reads_other_columns_is_refused_before_the_first_members_fit():
    """An average whose members do not read the same features: one error, with nothing fitted."""
    samples = make_samples()
    whole = SeedAverage(traits_model(), n_seeds=2)
    for average in (Average({"plain": make_model(), "traits": traits_model()}), whole):
        with pytest.raises(CombinationError, match="trait columns none"):
            check_part("model", average, samples)
        check_part("model", average, coded(samples))


def test_a_scaler_leaves_codes_alone_and_trait_names_tell_their_classes(data):
    assert trait_classes(("a", *TRAITS, "trait_odd", "trait_x_of_y")) == {1: 3, 2: 4}
    table = _with_age(data[0].table, 9.0)  # beyond the clip
    scaler = RobustScaler().fit(table, data[0].rows)
    again = RobustScaler.from_json(scaler.to_json())
    for one in (scaler, again):
        np.testing.assert_array_equal(one.apply(table).values[:, -2:], table.values[:, -2:])
    assert np.abs(scaler.apply(table).values[:, 0] - table.values[:, 0]).max() > 1e-3


@pytest.mark.parametrize(
    "net",
    [SMALL, partial(TwoScales, fine=4, coarse=3, d_model=8, n_heads=2), partial(TemporalConvNet, width=8)],
    ids=["transformer", "two_scales", "tcn"],
)
@pytest.mark.parametrize("wide", [False, True])
def test_the_graph_answers_as_the_parts_do(tmp_path, net, wide):
    model = SequenceModel(
        net=traits_of(net), module=LitClassifier, trainer=TrainerSettings(), lookback=LOOKBACK, batch_size=64, wide=wide
    )
    torch.manual_seed(0)
    made = moved(traits_of(net)(n_features=6, n_classes=2, lookback=LOOKBACK))
    made = Wide(made) if wide else made
    for head in (made.deep.head, made.wide) if wide else (made.head,):
        torch.nn.init.normal_(head.weight, std=0.3)
    model = with_fitted(model, {"net_": made.eval()})
    samples, scaler, score_NC, calibrator = parts(model, Temperature(), change=coded)
    path = tmp_path / "model.onnx"
    rows = samples.rows[::3]
    worst = export_onnx(path, scaler=scaler, model=model, calibrator=calibrator, table=samples.table, rows=rows)
    assert worst < 1e-5
    got_NC, _ = OnnxModel.load(path).predict(samples.table, samples.rows)
    np.testing.assert_allclose(got_NC, score_NC, rtol=0, atol=1e-6)


@pytest.mark.parametrize("net", [SMALL, partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.2)])
@pytest.mark.parametrize("wide", [False, True])
def test_each_net_of_a_stack_is_the_net_trained_alone(data, net, wide):
    models = [traits_model(net, partial(LitClassifier, lr=0.01), wide, seed, max_epochs=2) for seed in (3, 4, 9)]
    stacked = models[0].fit_together(models, *data, workdir=None, stacked=True)
    assert stacked is not None
    alone = [model.fit(*data) for model in models]
    assert_same(stacked, alone)
    for one, other in zip(stacked, alone, strict=True):
        both = (model.predict_proba(data[1].table, data[1].rows) for model in (one, other))
        np.testing.assert_allclose(*both, rtol=0, atol=1e-5)


def test_a_stack_refuses_columns_that_are_not_the_nets_traits():
    models = [traits_model(max_epochs=1, seed=seed) for seed in (0, 1)]
    with pytest.raises(CombinationError, match="trait columns none"):
        models[0].fit_together(models, *split(make_samples(n_features=5)), workdir=None, stacked=True)


@pytest.mark.parametrize("wide", [False, True])
def test_a_contrastive_encoder_and_its_probe_read_traits(data, wide):
    module = partial(LitSupCon, views=Views([Jitter(0.05)]), lr=0.01, projection_dim=6)
    settings = TrainerSettings(max_epochs=2, patience=2)
    model = SupConModel(
        traits_of(),
        module,
        settings,
        lookback=data[0].rows[0] + 1,
        batch_size=64,
        wide=wide,
        probe=LogisticRegression(),
    ).fit(*data)
    assert model.net_.rows[0].abs().sum(dim=1).min() > 1e-5
    table = _with_age(data[1].table, 4)
    gap = model.predict_proba(table, data[1].rows) - model.predict_proba(_with_age(table, 0), data[1].rows)
    assert np.abs(gap).max() > 1e-6


def test_pre_training_moves_the_rows_and_a_frozen_encoder_keeps_them(data):
    stage = MaskedBars(epochs=1, batch_size=64, lr=0.01, freeze="encoder")
    model = replace(traits_model(max_epochs=1), pretrain=stage).fit(*data)
    assert model.net_.rows[0].abs().sum(dim=1).min() > 1e-5


@pytest.mark.parametrize("model", [LogisticRegression(), LightGbm(n_estimators=5)], ids=["logistic", "lightgbm"])
def test_tabular_models_read_the_codes_as_numbers(data, model):
    fitted = model.fit(*data)
    assert np.isfinite(fitted.predict_proba(data[1].table, data[1].rows)).all()
