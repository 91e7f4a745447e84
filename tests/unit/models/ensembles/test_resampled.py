"""Weights that are made at the fit: age, and a sequential bootstrap of the training samples."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import DataError, TrainingError
from tradsys.core.tables import FeatureTable, Labels
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.market.tradable import trailing_turnover
from tradsys.market.true_range import log_steps
from tradsys.models.ensembles.compose import SeedAverage
from tradsys.models.ensembles.resampled import Decayed, SequentialBootstrap
from tradsys.models.linear import LogisticRegression
from tradsys.samples.join import make_samples
from tradsys.samples.sequential_bootstrap import sequential_bootstrap
from tradsys.samples.weights import average_uniqueness, liquidity_weights, return_attribution


def samples(weighting="uniqueness", n=400):
    bars = walk_bars(n, ("AAA", "BBB"))
    labels = replace(TripleBarrier(horizon_bars=8).label(bars), step=log_steps(bars), turnover=trailing_turnover(bars))
    table = FeatureTable(
        symbol=np.repeat([0, 1], n).astype(np.int32),
        time=bars["time"].dt.replace_time_zone(None).to_numpy(),
        segment=np.repeat([0, 1], n).astype(np.int32),
        values=np.random.default_rng(0).normal(size=(2 * n, 3)).astype(np.float32),
        names=("a", "b", "c"),
        symbols=("AAA", "BBB"),
    )
    return make_samples(table, labels, lookback=1, weighting=weighting), labels


@dataclass(frozen=True)
class Spy:
    """A model that keeps what it was fitted on."""

    seed: int = 0
    lookback: int = 1
    reads_raw: bool = True

    def fit(self, train, valid):
        return SimpleNamespace(train=train, valid=valid, seed=self.seed)


def test_what_was_drawn_k_times_weighs_k_times():
    train, _ = samples()
    model = SequentialBootstrap(Spy(), seed=3)
    done = model.fit(train, train)
    times = np.bincount(sequential_bootstrap(train.rows + 1, train.end, seed=3), minlength=len(train))
    kept = times > 0
    np.testing.assert_array_equal(done.train.rows, train.rows[kept])
    wanted = (train.weight * times)[kept]
    np.testing.assert_allclose(done.train.weight, wanted / wanted.mean())
    assert done.valid is train
    assert (model.lookback, model.reads_raw) == (1, True)
    with pytest.raises(TrainingError, match="not fitted"):
        model.predict_proba(train.table, train.rows)


def test_each_member_of_a_seed_average_draws_its_own():
    train, _ = samples()
    members = SeedAverage(SequentialBootstrap(Spy(), share=0.5), n_seeds=3).fit(train, train).members_
    drawn = {tuple(m.train.rows) for m in members.values()}
    assert len(drawn) == 3
    assert len({m.seed for m in members.values()}) == 3


def test_old_samples_weigh_less_and_the_oldest_nothing():
    train, _ = samples()
    order = np.argsort(train.time, kind="stable")
    done = Decayed(Spy(), 0.25).fit(train, train).train
    ratio = done.weight / train.weight
    assert (np.diff(ratio[order]) >= -1e-12).all()
    assert ratio.min() / ratio.max() == pytest.approx(0.25, abs=0.02)
    left = Decayed(Spy(), -0.4).fit(train, train).train
    assert len(left) < len(train)
    assert left.time.min() > np.quantile(train.time.astype("int64"), 0.25).astype("datetime64[us]")
    same = Decayed(Spy(), 1.0).fit(train, train).train
    np.testing.assert_allclose(same.weight, train.weight / train.weight.mean())


def test_a_decayed_logistic_is_the_logistic_on_decayed_weights():
    train, _ = samples()
    decayed = Decayed(LogisticRegression(), 0.1).fit(train, train)
    spied = Decayed(Spy(), 0.1).fit(train, train).train
    plain = LogisticRegression().fit(spied, train)
    np.testing.assert_array_equal(
        decayed.predict_proba(train.table, train.rows), plain.predict_proba(train.table, train.rows)
    )


def test_weights_by_return_are_the_labels_own_move():
    train, labels = samples("return")
    np.testing.assert_allclose(train.weight, return_attribution(train.rows + 1, train.end, labels.step))
    table = train.table
    with pytest.raises(ValueError, match="step, the log return of each bar"):
        make_samples(table, replace(labels, step=None), lookback=1, weighting="return")
    assert isinstance(labels, Labels)


def test_weights_by_liquidity_compare_the_names_of_one_moment():
    train, labels = samples("liquidity")
    own = train.weight / average_uniqueness(train.rows + 1, train.end)
    root = np.sqrt(labels.turnover[train.rows])
    for moment in np.unique(train.time):
        at = train.time == moment
        assert own[at].mean() == pytest.approx(1.0)
        np.testing.assert_allclose(own[at], root[at] / root[at].mean())
    with pytest.raises(ValueError, match="labels' turnover"):
        make_samples(train.table, replace(labels, turnover=None), lookback=1, weighting="liquidity")


def test_a_moment_without_turnover_counts_its_names_alike():
    time = np.array([1, 1, 2, 2, 2])
    np.testing.assert_allclose(liquidity_weights(np.array([1.0, 4.0, 0.0, 0.0, 0.0]), time), [2 / 3, 4 / 3, 1, 1, 1])
    assert len(liquidity_weights(np.empty(0), np.empty(0))) == 0
    with pytest.raises(ValueError, match="finite and >= 0"):
        liquidity_weights(np.array([1.0, np.nan]), np.array([1, 1]))


def test_turnover_is_that_of_the_last_week_and_knows_nothing_later():
    bars = walk_bars(400, ("AAA", "BBB"))
    found = trailing_turnover(bars)
    for symbol in ("AAA", "BBB"):
        own = bars["symbol"].to_numpy() == symbol
        money = pd.Series((bars["close"] * bars["volume"]).to_numpy()[own], index=bars["time"].to_numpy()[own])
        np.testing.assert_allclose(found[own], money.rolling("7D").mean().to_numpy())
    cut = bars.filter(pl.int_range(pl.len()).over("symbol") < 250)
    before = bars.with_row_index("row").join(cut.select("symbol", "time"), on=["symbol", "time"], how="semi")["row"]
    np.testing.assert_allclose(trailing_turnover(cut), found[before.to_numpy()])
    with pytest.raises(DataError, match="have no recorded volume"):
        trailing_turnover(bars.with_columns(volume=pl.lit(0.0)))


def test_a_bars_own_return_ends_at_its_segment():
    bars = walk_bars(30, ("AAA", "BBB"))
    step = log_steps(bars)
    assert np.isnan(step[[0, 30]]).all()
    np.testing.assert_allclose(step[1:30], np.diff(np.log(bars["close"].to_numpy()[:30])))


@pytest.mark.parametrize("share", [0, -1, float("nan"), float("inf")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(TrainingError, match="share"):
        SequentialBootstrap(Spy(), share=share)
