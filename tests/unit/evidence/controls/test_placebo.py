from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.evidence import cosines
from tradsys.evidence.bootstrap import Estimate, dependence_length
from tradsys.evidence.controls.placebo import (
    DailyRecord,
    PairedDifference,
    against_placebos,
    helps,
    paired_differences,
    precision_lift,
    rotated_vetoes,
    trade_means,
)
from tradsys.evidence.sharpe import sharpe_ratio

DAYS = 240


def record(seed: int, n: int = 3) -> DailyRecord:
    rng = np.random.default_rng(seed)
    trades = rng.poisson(1.0, (DAYS, n)).astype(float)
    gains = trades * rng.normal(0.002, 0.01, (DAYS, n))
    return DailyRecord(gains / 4, gains, trades)


def test_a_record_says_sharpe_and_mean_trade_of_each_strategy():
    one = record(0)
    np.testing.assert_allclose(one.sharpe(), sharpe_ratio(one.returns))
    np.testing.assert_allclose(one.per_trade(), one.gains.sum(axis=0) / one.trades.sum(axis=0))
    idle = DailyRecord(np.zeros((DAYS, 1)), np.zeros((DAYS, 1)), np.zeros((DAYS, 1)))
    assert idle.sharpe()[0] == 0
    assert np.isnan(idle.per_trade()[0])


def test_the_rounding_of_split_cash_is_no_sharpe_ratio():
    rng = np.random.default_rng(0)
    dust = rng.choice([0.0, 1.1e-16, -1.1e-16], (DAYS, 2)) + 1e-17
    assert (DailyRecord(dust, np.zeros_like(dust), np.zeros_like(dust)).sharpe() == 0).all()
    small = record(0)
    tiny = DailyRecord(1e-6 * small.returns, small.gains, small.trades)
    np.testing.assert_allclose(tiny.sharpe(), small.sharpe())


def test_paired_differences_equal_the_formula_by_loops():
    one, other = record(1, 1), record(2, 4)
    found = paired_differences(one, other, periods_per_year=365)
    mine, theirs = one.returns.mean(axis=1), other.returns.mean(axis=1)

    def values(weight):
        sides = []
        for r in (one, other):
            mean = weight @ r.returns / DAYS
            deviation = np.sqrt((weight @ r.returns**2 - DAYS * mean**2) / (DAYS - 1))
            sides.append(((mean / deviation).mean(), np.mean((weight @ r.gains) / (weight @ r.trades))))
        return (sides[0][0] - sides[1][0]) * np.sqrt(365), sides[0][1] - sides[1][1]

    block = dependence_length(np.column_stack([mine, mine - theirs]))
    waves = cosines.cosines(DAYS, cosines.n_cosines(DAYS, block))
    slopes = np.array([np.subtract(values(1 + 1e-3 * w), values(1 - 1e-3 * w)) / 2e-3 for w in waves])
    half = cosines.student_quantile(0.95, len(waves)) * np.sqrt((slopes**2).mean(axis=0))
    for k, name in enumerate(("sharpe", "per_trade")):
        value = values(np.ones(DAYS))[k]
        assert getattr(found, name).value == pytest.approx(value)
        assert (getattr(found, name).low, getattr(found, name).high) == pytest.approx(
            (value - half[k], value + half[k]), rel=1e-6
        )


def test_pairing_takes_the_common_luck_out():
    rng = np.random.default_rng(3)
    market = rng.normal(0, 0.02, (DAYS, 1))
    ones = np.ones((DAYS, 1))
    base = DailyRecord(market, market, ones)
    better = DailyRecord(market + 0.001, market + 0.001, ones)
    gap = paired_differences(better, base, periods_per_year=365)
    assert gap.sharpe.low > 0
    # per trade the gap is the very same every day, so nothing is known of its error
    assert gap.per_trade.value == pytest.approx(0.001)
    assert gap.per_trade.low is None
    assert "constant over time" in gap.per_trade.reason


def test_sides_that_did_the_same_have_no_p_value():
    for one in (record(1, 1), replace(record(1, 1), returns=np.zeros_like(record(1, 1).returns))):
        assert paired_differences(one, one, periods_per_year=365).as_dict()["p_value"] is None


def test_the_p_value_says_what_the_interval_says():
    """Below 0.05 exactly where the 95 % interval leaves out zero, on pairs that differ more and less."""
    said = []
    for seed in range(40):
        found = paired_differences(record(seed, 1), record(100 + seed, 1), periods_per_year=365)
        assert (found.p_value < 0.05) == (found.sharpe.low > 0 or found.sharpe.high < 0)
        said.append(found.p_value)
    assert min(said) < 0.3 < max(said)


def test_what_cannot_be_known_is_none_with_its_reason():
    idle = DailyRecord(np.zeros((DAYS, 1)), np.zeros((DAYS, 1)), np.zeros((DAYS, 1)))
    gap = paired_differences(record(4, 1), idle, periods_per_year=365)
    assert gap.per_trade.value is None
    assert "never traded" in gap.per_trade.reason
    assert gap.sharpe.value == pytest.approx(np.sqrt(365) * record(4, 1).sharpe()[0])
    short = DailyRecord(*(part[:12] for part in (record(4, 1).returns, record(4, 1).gains, record(4, 1).trades)))
    few = paired_differences(short, short, periods_per_year=365, min_block=5)
    assert few.sharpe.low is None
    assert few.p_value is None
    assert "2.4 independent blocks" in few.sharpe.reason
    with pytest.raises(DataError, match="12 days against 240"):
        paired_differences(short, idle, periods_per_year=365)
    with pytest.raises(DataError, match="not finite"):
        DailyRecord(idle.returns * np.nan, idle.gains, idle.trades)


def panel(n_symbols=2, n_bars=50, seed=0):
    rng = np.random.default_rng(seed)
    symbol, bar = (a.ravel() for a in np.meshgrid(np.arange(n_symbols), np.arange(n_bars), indexing="ij"))
    return rng.random(n_symbols * n_bars), symbol, bar


def test_a_placebo_is_the_auditor_at_another_time_for_all_symbols_alike():
    score, symbol, bar = panel()
    candidate = np.sort(np.random.default_rng(1).choice(100, 40, replace=False))
    kept = rotated_vetoes(score, symbol, bar, candidate, 13, n_draws=1000, min_shift=4, seed=2)
    assert kept.shape == (50 - 2 * 4 + 1, 40)  # every shift that is far enough, each once
    assert (kept.sum(axis=1) == 13).all()
    expected = set()
    for shift in range(4, 47):
        said = [score[symbol[c] * 50 + (bar[c] + shift) % 50] for c in candidate]
        expected.add(tuple(np.array(said) >= np.sort(said)[-13]))
    assert {tuple(row) for row in kept} == expected


def test_placebos_answer_where_a_bar_is_missing_and_among_equals_by_lot():
    _, symbol, bar = panel()
    there = np.delete(np.arange(100), [10, 11, 70])
    constant = np.full(97, 0.5)
    kept = rotated_vetoes(constant, symbol[there], bar[there], np.arange(30), 10, n_draws=40, min_shift=2, seed=0)
    assert (kept.sum(axis=1) == 10).all()
    # equal answers keep no preference for early candidates
    assert 0.15 < kept[:, :10].mean() < 0.55


@pytest.mark.parametrize("n_kept", [0, 40])
def test_a_veto_of_all_or_none_has_no_placebo(n_kept):
    score, symbol, bar = panel()
    with pytest.raises(DataError, match="stops some and not all"):
        rotated_vetoes(score, symbol, bar, np.arange(40), n_kept, n_draws=5, min_shift=1, seed=0)


def test_a_rank_among_placebos_by_hand():
    found = against_placebos(2.0, np.array([1.0, 2.0, 3.0, np.nan]))
    assert found["p_value"] == (1 + 3) / (1 + 4)  # one ties, one is above, one is unknown: all count against
    assert (found["value"], found["mean"], found["n"]) == (2.0, 2.0, 4)
    assert against_placebos(np.nan, np.array([1.0]))["p_value"] is None


def slow_lift(paid, kept, score):
    """Precision minus that of the top scores at equal recall, one candidate after another; scores all different."""
    hits = int((paid & kept).sum())
    taken = good = 0
    for n in np.argsort(-score):
        taken, good = taken + 1, good + paid[n]
        if good == hits:
            return hits / kept.sum() - hits / taken
    return None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 60))
def test_precision_lift_equals_a_walk_down_the_scores(seed, n):
    rng = np.random.default_rng(seed)
    paid, kept = rng.random(n) < 0.5, rng.random(n) < 0.6
    score = rng.permutation(n) / n
    found = precision_lift(paid, kept, score, np.arange(n), min_block=n)
    if not (paid & kept).any():
        assert found["lift"]["value"] is None
        return
    assert found["lift"]["value"] == pytest.approx(slow_lift(paid, kept, score))
    assert found["precision"] == pytest.approx(paid[kept].mean())
    assert found["recall"] == pytest.approx((paid & kept).sum() / paid.sum())


def test_a_score_that_is_always_the_same_matches_at_the_base_rate():
    rng = np.random.default_rng(0)
    paid, kept = rng.random(400) < 0.4, rng.random(400) < 0.5
    found = precision_lift(paid, kept, np.full(400, 0.7), np.arange(400), min_block=4)
    assert found["matched"] == pytest.approx(found["base"])
    assert found["lift"]["low"] < found["lift"]["value"] < found["lift"]["high"]


def test_an_auditor_that_repeats_the_score_has_no_lift_and_a_seer_has():
    rng = np.random.default_rng(1)
    score = rng.random(2000)
    paid = rng.random(2000) < 0.3 + 0.4 * score
    same = precision_lift(paid, score > 0.5, score, np.arange(2000), min_block=5)
    # matched stops at the last good one, so an equal threshold loses a few bad ones at most
    assert same["lift"]["value"] == pytest.approx(0, abs=0.005)
    nearly = paid ^ (rng.random(2000) < 0.1)
    seer = precision_lift(paid, nearly, score, np.arange(2000), min_block=5)
    assert seer["lift"]["low"] > 0.2


def test_mean_trades_of_groups_have_intervals_and_reasons():
    one = record(6)
    gains, trades = one.gains * [1, 1, 0], one.trades * [1, 1, 0]
    first, _, none = trade_means(gains, trades, min_block=1)
    assert first.value == pytest.approx(one.per_trade()[0])
    assert first.low < first.value < first.high
    assert (none.value, none.reason) == (None, "no trade")


def judged(seed: int, knows: float) -> str:
    """The verdict on a planted auditor: three symbols, hourly answers that clump over two days, some knowledge."""
    rng = np.random.default_rng(seed)
    n_symbols, n_bars = 3, 24 * DAYS
    slow = np.repeat(rng.normal(size=(n_bars // 48, 1)), 48, axis=0)  # moods that all symbols share
    shock = 0.01 * np.repeat(rng.normal(size=(n_bars // 48, 1)), 48, axis=0)  # so do their outcomes
    outcome = shock + rng.normal(0, 0.02, (n_bars, n_symbols))
    answer = (knows * outcome / 0.02 + slow + 0.3 * rng.normal(size=outcome.shape)).T.ravel()
    symbol, bar = (a.ravel() for a in np.meshgrid(np.arange(n_symbols), np.arange(n_bars), indexing="ij"))
    candidate = np.flatnonzero(rng.random(len(answer)) < 0.05)
    n_kept = len(candidate) // 2
    passes = np.zeros(len(candidate), dtype=bool)
    passes[np.argsort(-answer[candidate])[:n_kept]] = True
    placebos = rotated_vetoes(answer, symbol, bar, candidate, n_kept, n_draws=199, min_shift=24, seed=seed)
    every = np.vstack([passes, np.ones(len(candidate), dtype=bool), placebos]).T.astype(float)
    gained = every * outcome.T.ravel()[candidate][:, None]
    gains, trades = np.zeros((DAYS, every.shape[1])), np.zeros((DAYS, every.shape[1]))
    np.add.at(gains, bar[candidate] // 24, gained)
    np.add.at(trades, bar[candidate] // 24, every)
    whole = DailyRecord(gains / 5, gains, trades)
    audited, unaudited, rest = whole.columns(slice(0, 1)), whole.columns(slice(1, 2)), whole.columns(slice(2, None))
    both = {"sharpe": whole.sharpe(), "per_trade": whole.per_trade()}
    ranks = {name: against_placebos(v[0], v[2:]) for name, v in both.items()}
    gap, plain = (paired_differences(audited, o, periods_per_year=365) for o in (rest, unaudited))
    return helps(ranks, gap, plain, n_trades=int(passes.sum()), min_trades=30)["kind"]


def test_a_useful_auditor_is_distinguished_from_a_useless_one():
    useful = [judged(seed, knows=1.0) for seed in range(8)]
    useless = [judged(seed, knows=0.0) for seed in range(40)]
    assert useful == ["yes"] * 8
    assert useless.count("yes") <= 4
    assert useless.count("cannot be determined") == 0


GOOD = {"value": 2.0, "mean": 1.0, "low": 0.0, "high": 1.5, "p_value": 0.01, "n": 1000}


@pytest.mark.parametrize(
    ("placebos", "n_trades", "kind", "said"),
    [
        ({"sharpe": GOOD, "per_trade": GOOD}, 29, "cannot be determined", "29 closed trades (least 30)"),
        ({"sharpe": GOOD | {"n": 18}, "per_trade": GOOD}, 50, "cannot be determined", "18 placebos"),
        ({"sharpe": GOOD | {"p_value": 0.06}, "per_trade": GOOD}, 50, "no", "Sharpe: p = 0.060"),
        ({"sharpe": GOOD, "per_trade": GOOD | {"p_value": None}}, 50, "no", "net return of a trade: p = unknown"),
        ({"sharpe": GOOD, "per_trade": GOOD}, 50, "yes", "beats placebos"),
    ],
)
def test_a_verdict_names_what_failed(placebos, n_trades, kind, said):
    above = Estimate(1.0, 0.5, 1.5)
    better = PairedDifference(above, above, 0.01)
    found = helps(placebos, better, better, n_trades=n_trades, min_trades=30)
    assert found["kind"] == kind
    assert any(said in reason for reason in found["reasons"])


def test_one_that_picks_well_but_leaves_too_little_is_no_help():
    picks, loses = Estimate(0.01, 0.005, 0.02), Estimate(-0.3, -0.5, 0.1)
    found = helps(
        {"sharpe": GOOD, "per_trade": GOOD},
        PairedDifference(picks, picks, 0.01),
        PairedDifference(loses, picks, 0.2),
        n_trades=100,
        min_trades=30,
    )
    assert found["kind"] == "no"
    assert found["reasons"] == ["the Sharpe is no higher than that of the same strategy without the auditor"]
