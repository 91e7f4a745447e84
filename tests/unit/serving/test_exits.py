from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import BundleError
from tradsys.labels.expansion import RangeExpansion
from tradsys.labels.explosion import Explosion
from tradsys.labels.forward_return import ForwardReturn
from tradsys.labels.mean_reached import MeanReached
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.reports.wording import class_meaning
from tradsys.reports.wording import exits as exits_in_words
from tradsys.serving import exits
from tradsys.serving.strategy import BreakEvenRule, BreakoutRule, ExpansionSizing, Profile, Strategy, ThresholdRule

FRAME = pl.DataFrame(
    {
        "symbol": ["A"] * 5,
        "time": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 5), "1d", time_zone="UTC", eager=True),
        "close": [100.0, 100.0, 100.0, 100.0, 100.0],
        "atr": [2.0, 2.0, 2.0, 2.0, np.nan],
        "mean": [103.0, 103.0, 96.0, np.nan, 103.0],
        "side": pl.Series([1, -1, -1, 1, 1], dtype=pl.Int8),
        "score": [0.9, 0.6, 0.6, 0.6, 0.6],
        "probability": [0.8, 0.5, 0.4, 0.9, 0.9],
    }
)


def targets(label, profile, frame=FRAME):
    bundle = SimpleNamespace(card={"label": label.card()}, valid_scores=np.linspace(0, 1, 1001))
    return Strategy("x", bundle, profile, 0.001).targets(frame, None, frame)


def test_distances_to_the_mean_by_hand():
    label = MeanReached(mean_bars=7, lower=1.5).card()
    take, stop = exits.distances(label, FRAME)
    np.testing.assert_array_equal(take, [3.0, np.nan, 4.0, np.nan, 3.0])  # the second lies beyond its mean already
    np.testing.assert_array_equal(stop, [3.0, 3.0, 3.0, 3.0, np.nan])
    np.testing.assert_array_equal(exits.distances(label, FRAME.drop("side"))[0], [3.0, 3.0, np.nan, np.nan, 3.0])


@pytest.mark.parametrize("label", [TripleBarrier(upper=3.0, lower=0.5), RangeExpansion(upper=3.0, lower=0.5)])
def test_distances_in_atrs_are_those_of_the_side(label):
    take, stop = exits.distances(label.card(), FRAME)
    np.testing.assert_array_equal(take, [6.0, 6.0, 6.0, 6.0, np.nan])
    np.testing.assert_array_equal(stop, [1.0, 1.0, 1.0, 1.0, np.nan])


def test_the_mean_is_the_labels_mean():
    bars = walk_bars(60)
    (name, mean), *others = exits.measures(MeanReached(mean_bars=7).card(), bars).items()
    assert (name, others) == ("mean", [])
    close = bars["close"].to_numpy()
    np.testing.assert_allclose(mean[6:], [close[t - 6 : t + 1].mean() for t in range(6, 60)], rtol=1e-13)
    assert np.isnan(mean[:6]).all()
    assert exits.measures(TripleBarrier().card(), bars) == {}


def test_a_label_of_another_kind_is_refused_by_name():
    with pytest.raises(BundleError, match="label kind 'moon' has no exits"):
        exits.kind_of({"kind": "moon"})


def test_break_even_reads_each_rows_own_distances():
    """p >= (stop + c price) / (take + stop): 3.1 / 6 for the first row, 3.1 / 7 for the third, which misses it."""
    got = targets(MeanReached(mean_bars=7, lower=1.5), Profile(BreakEvenRule()))
    assert got.select("side", "take_profit", "stop_loss").rows() == [(1, 3.0, 3.0)]
    lower = targets(MeanReached(mean_bars=7, lower=1.5), Profile(BreakEvenRule(3.1 / 7 * -0.1 - 0.001)))
    assert lower["side"].to_list() == [1, -1]


def test_break_even_of_a_short_pays_the_borrow_fee_of_its_longest_holding_time():
    """Third row, a short: 48 hours at 36.5 % a year are 0.2 % of 100; (3 + 0.1 + 0.2) / 7 instead of 3.1 / 7."""
    card = {"label": MeanReached(mean_bars=7, lower=1.5, horizon_bars=48).card()}
    for minutes, calendar, fee in ((60, None, 0.365), (1440, "XNYS", 0.002 * 251.65 / 48)):
        bundle = SimpleNamespace(card=card, bar_minutes=minutes, data_config=lambda c=calendar: {"calendar": c})
        for probability, entered in ((3.29 / 7, []), (3.31 / 7, [-1])):
            frame = FRAME[2].with_columns(probability=pl.lit(probability))
            for borrow, want in ((fee, entered), (0.0, [-1])):
                strategy = Strategy("x", bundle, Profile(BreakEvenRule()), 0.001, borrow)
                assert strategy.targets(frame, None, frame)["side"].to_list() == want
    long = FRAME[2].with_columns(probability=pl.lit(3.29 / 7), side=pl.lit(1, pl.Int8), mean=pl.lit(104.0))
    bundle = SimpleNamespace(card=card, bar_minutes=60, data_config=dict)
    paid = Strategy("x", bundle, Profile(BreakEvenRule()), 0.001, 0.365).targets(long, None, long)
    assert paid["side"].to_list() == [1]


def test_breakouts_enter_on_their_side_and_sizes_fall_with_the_probability():
    sized = Profile(BreakoutRule(0.5, "probability"), size=0.5, sizing=ExpansionSizing(0.2))
    got = targets(RangeExpansion(), sized)
    assert got["side"].to_list() == [1, -1, 1]
    np.testing.assert_allclose(got["size"], 0.5 * (1 - 0.8 * np.array([0.8, 0.5, 0.9])))
    assert "size falls to 0.2" in sized.describe()


@pytest.mark.parametrize(
    ("label", "profile", "words"),
    [
        (RangeExpansion(), Profile(ThresholdRule(0.5, "score")), r"use strategy=\[breakout\]"),
        (RangeExpansion(), Profile(BreakEvenRule()), r"use strategy=\[breakout\]"),
        (TripleBarrier(), Profile(BreakoutRule(0.5, "score")), "agent=volatility"),
        (ForwardReturn(), Profile(BreakEvenRule()), "ends positions only by time"),
        (Explosion(), Profile(BreakEvenRule()), "ends positions only by time"),
        (Explosion(), Profile(ThresholdRule(0.5, "score", short=True)), "no rise of that size is no fall"),
        (TripleBarrier(), Profile(ThresholdRule(0.5, "score"), sizing=ExpansionSizing(0.5)), "agent=volatility"),
    ],
)
def test_what_does_not_fit_the_label_is_refused(label, profile, words):
    with pytest.raises(BundleError, match=words):
        targets(label, profile)


def test_a_breakout_needs_a_side():
    with pytest.raises(BundleError, match="without a side"):
        targets(RangeExpansion(), Profile(BreakoutRule(0.5, "score")), FRAME.drop("side"))


@pytest.mark.parametrize(
    "make", [lambda: ExpansionSizing(0.0), lambda: ExpansionSizing(1.5), lambda: BreakoutRule(1.0, "score")]
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="strategy: "):
        make()


@pytest.mark.parametrize("label", [TripleBarrier(), MeanReached(), RangeExpansion(), ForwardReturn(), Explosion()])
def test_every_label_is_reported_in_words(label):
    assert str(label.card()["horizon_bars"]) in exits_in_words(label.card())
    assert len(class_meaning(label.card())) > 20
    assert (exits_in_words({}), class_meaning({})) == ("", "")


@pytest.mark.parametrize("label", [ForwardReturn(horizon_bars=5), Explosion(rise=0.01, horizon_bars=5)])
def test_a_label_without_barriers_is_what_its_position_alone_earns(label):
    """Every candidate entered by the strategy's own exits, one at a time, without costs."""
    bars = walk_bars(60, seed=4)
    found = label.label(bars)
    frame = bars.select("symbol", "time", "close").with_columns(
        atr=pl.lit(np.nan), score=pl.lit(0.9), probability=pl.lit(0.9)
    )
    wanted = targets(label, Profile(ThresholdRule(0.5, "score")), frame)
    assert wanted.height == 60
    for t in np.flatnonzero(found.y >= 0):
        trade = simulate(bars, wanted.filter(pl.col("time") == bars["time"][int(t)]), Costs(0.0, 0.0)).trades
        assert (trade["exit_time"][0], trade["reason"][0]) == (bars["time"][int(found.end[t])], "timeout")
        paid = np.log(trade["exit_price"][0] / trade["entry_price"][0])
        assert paid == pytest.approx(found.ret[t], abs=1e-12)
    assert (found.y >= 0).sum() == 55
