from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import LOOKBACK, assert_same_weights, make_model, make_samples, weights
from tradsys.core.errors import LeakageError, TrainingError
from tradsys.models.training import pretraining
from tradsys.models.training.pretraining import ContrastInTime, MaskedBars, corpus_rows, trained_parameters


@pytest.fixture(scope="module")
def samples():
    return make_samples(600)


def every(samples, low, high, step=4):
    """Decisions at every fourth row of a span, as a clock gives them."""
    return samples.take(np.flatnonzero((samples.rows >= low) & (samples.rows < high) & (samples.rows % step == 0)))


STAGES = [MaskedBars, ContrastInTime]


def model(stage=MaskedBars, **settings):
    return replace(make_model(max_epochs=1), pretrain=stage(**({"epochs": 2, "batch_size": 64} | settings)))


def disturbed(samples, keep):
    """The samples on a table whose rows outside `keep` hold other numbers."""
    values = samples.table.values.copy()
    values[~keep] = 7 - 3 * values[~keep]
    return samples.on(samples.table.with_values(values))


def test_the_corpus_is_every_window_inside_the_training_span(samples):
    train = every(samples, 100, 300)
    rows = corpus_rows(train, LOOKBACK)
    assert rows.tolist() == list(range(100 + LOOKBACK - 1, 297))  # four times as many windows as decisions
    assert len(rows) > 3 * len(train)


def test_a_hole_that_a_split_left_is_not_read(samples):
    train = samples.take(np.flatnonzero((samples.rows < 200) | (samples.rows >= 400)))
    rows = corpus_rows(train, LOOKBACK)
    assert not ((rows >= 200) & (rows < 400 + LOOKBACK - 1)).any()
    assert {199, 400 + LOOKBACK - 1} <= set(rows.tolist())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("hole", [False, True])
def test_pre_training_reads_nothing_outside_the_training_span(samples, monkeypatch, hole, stage):
    """Other numbers after the training span, or in a hole of it, change no weight; a corpus that reads them does."""
    train, valid = every(samples, 8, 400), every(samples, 450, 560)
    keep = np.arange(600) < 400
    keep[450 - LOOKBACK : 560] = True  # validation stops the fit and may be read by it, not by the pre-training
    if hole:
        train = train.take(np.flatnonzero((train.rows < 150) | (train.rows >= 300)))
        keep[155:290] = False
    fitted, other = (
        model(stage).fit(train.on(t.table), valid.on(t.table)) for t in (samples, disturbed(samples, keep))
    )
    assert_same_weights(weights(fitted), weights(other))

    def careless(train, lookback, end=None):
        return np.flatnonzero(train.table.ready(lookback))

    monkeypatch.setattr(pretraining, "corpus_rows", careless)
    fitted, other = (
        model(stage).fit(train.on(t.table), valid.on(t.table)) for t in (samples, disturbed(samples, keep))
    )
    with pytest.raises(AssertionError):
        assert_same_weights(weights(fitted), weights(other))


def test_it_learns_to_fill_in_what_is_hidden(samples):
    """On columns that repeat one another the embedding tells the hidden ones: the loss falls far below that of 0."""
    values = np.repeat(samples.table.values[:, :1], 3, axis=1)
    train = every(samples.on(samples.table.with_values(values)), 8, 560)
    net = make_model().built_net(n_features=3, n_classes=2)
    stage = MaskedBars(epochs=30, batch_size=64, lr=0.01, bar_share=0.0, feature_share=0.3)
    window_NTF = torch.from_numpy(values[:LOOKBACK]).expand(256, LOOKBACK, 3)
    torch.manual_seed(0)
    before = [p.detach().clone() for p in net.parameters()]
    stage.run(net, train, lookback=LOOKBACK, seed=0, device=torch.device("cpu"))
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    hidden_NTF = stage.hidden(window_NTF)
    assert 0.2 < hidden_NTF.float().mean() < 0.4
    assert (hidden_NTF.all(dim=1) | ~hidden_NTF.any(dim=1)).all()


@pytest.mark.parametrize("overlap", [0.1, 0.5, 1.0])
def test_two_crops_share_a_run_of_bars(overlap):
    """Either crop is one run; they share at least the overlap, and each may be the earlier one."""
    torch.manual_seed(0)
    left_NT, right_NT = ContrastInTime(overlap=overlap, bar_share=0.0).kept(torch.zeros(3000, 10, 2))
    assert int((left_NT & right_NT).sum(dim=1).min()) >= round(10 * overlap)
    for view_NT in (left_NT, right_NT):
        assert int((view_NT.int().diff(dim=1) != 0).sum(dim=1).max()) <= 2
        assert overlap == 1 or 0.02 < (~view_NT[:, -1]).float().mean() < 0.9  # the decision bar is no shortcut
    first = [view.int().argmax(dim=1) for view in (left_NT, right_NT)]
    shares = [(first[0] < first[1]).float().mean(), (first[0] > first[1]).float().mean()]
    assert abs(shares[0] - shares[1]) < 0.05
    hidden_NT, _ = ContrastInTime(overlap=1.0, bar_share=0.3).kept(torch.zeros(3000, 10, 2))
    assert 0.28 < (~hidden_NT).float().mean() < 0.32


def test_contrast_tells_windows_apart_by_what_their_crops_share(samples):
    """After it, the two crops of a window find one another among those of 64 windows far more often than before."""
    slow = np.repeat(np.random.default_rng(0).normal(size=(76, 3)), 8, axis=0)[:600].astype(np.float32)
    train = every(samples.on(samples.table.with_values(slow)), 8, 560)
    torch.manual_seed(1)
    net = make_model().built_net(n_features=3, n_classes=2)
    stage = ContrastInTime(epochs=25, batch_size=64, lr=0.01, bar_share=0.1)
    window_NTF = torch.from_numpy(np.stack([slow[8 * k + 2 : 8 * k + 2 + LOOKBACK] for k in range(64)]))

    def found():
        torch.manual_seed(2)
        with torch.no_grad():
            left, right = (
                torch.nn.functional.normalize(net.eval().embed(window_NTF.masked_fill(~kept.unsqueeze(2), 0.0)), dim=1)
                for kept in stage.kept(window_NTF)
            )
        return float(((left @ right.T).argmax(dim=1) == torch.arange(64)).float().mean())

    before = found()
    stage.run(net, train, lookback=LOOKBACK, seed=0, device=torch.device("cpu"))
    assert found() > before + 0.2


@pytest.mark.parametrize(
    ("freeze", "trained"), [("encoder", ("head", "wide")), ("lower", ("head", "wide", "blocks.1.", ".norm."))]
)
def test_a_frozen_encoder_keeps_what_it_learnt(samples, freeze, trained):
    train, valid = every(samples, 8, 400), every(samples, 450, 560)
    frozen = replace(model(freeze=freeze), wide=True, net=partial(model().net, n_layers=2)).fit(train, valid)
    longer = replace(frozen, trainer=replace(frozen.trainer, max_epochs=3, keep="last")).fit(train, valid)
    moved = set()
    for (name, p), q in zip(weights(frozen).items(), weights(longer).values(), strict=True):
        assert torch.equal(p, q) is not any(part in name for part in trained), name
        moved |= {part for part in trained if part in name}
    assert moved == set(trained)


def test_the_last_block_is_the_last_of_each_encoder():
    names = ["a.blocks.9.w", "a.blocks.10.w", "b.blocks.0.w", "b.norm.w", "b.norms.0.w", "project.w", "head.bias"]
    assert trained_parameters(names, "lower") == {"a.blocks.10.w", "b.blocks.0.w", "b.norm.w", "head.bias"}
    assert trained_parameters(names, "encoder") == {"head.bias"}
    with pytest.raises(TrainingError, match=r"this net has no `blocks`; set model.pretrain.freeze=encoder"):
        trained_parameters(["project.w", "head.bias"], "lower")


def test_what_cannot_be_pre_trained_on_is_one_line_before_any_fit(samples):
    train, valid = every(samples, 8, 400), every(samples, 450, 560)
    with pytest.raises(
        LeakageError, match=r"pretrain: end=2020-02-01 lies after the last training decision 2020-01-17"
    ):
        model(end="2020-02-01").fit(train, valid)
    with pytest.raises(TrainingError, match="pretrain: no window of"):
        corpus_rows(train.take(np.arange(3)), 50)
    with pytest.raises(ValueError, match="pretrain: end='soon'"):
        model(end="soon").fit(train, valid)
    for wrong in ({"freeze": "half"}, {"bar_share": 0.0, "feature_share": 0.0}, {"epochs": 0}, {"lr": -1}):
        with pytest.raises(ValueError, match="pretrain"):
            MaskedBars(**wrong)
    for wrong in ({"freeze": "half"}, {"overlap": 0}, {"bar_share": 1}, {"temperature": 0}, {"batch_size": 1}):
        with pytest.raises(ValueError, match="pretrain"):
            ContrastInTime(**wrong)


def test_it_decides_the_weights_and_is_part_of_their_name(samples):
    train, valid = every(samples, 8, 400), every(samples, 450, 560)
    plain = make_model(max_epochs=1)
    assert plain.fingerprint(train, valid) != model().fingerprint(train, valid)
    assert plain.fit_together([model(), model()], train, valid, workdir=None, stacked=True) is None


@pytest.mark.parametrize("stage", STAGES)
def test_an_end_that_is_no_date_is_refused_where_it_is_set(stage):
    with pytest.raises(ValueError, match="end='yesterday'; it must be an ISO date or null"):
        stage(end="yesterday")


@pytest.mark.parametrize("stage", STAGES)
def test_a_corpus_beyond_the_training_span_is_refused_without_a_fit(samples, stage):
    train = every(samples, 100, 300)
    late = str(samples.table.time[300])
    for end in (None, str(train.time.max())):
        model(stage, end=end).check_samples(train)
    with pytest.raises(LeakageError, match="lies after the last training decision"):
        model(stage, end=late).check_samples(train)
