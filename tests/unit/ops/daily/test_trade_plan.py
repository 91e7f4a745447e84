import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import TradsysError
from tradsys.evidence.calibration import rate_bounds
from tradsys.ops.daily.trade_plan import (
    PlanSettings,
    Reliability,
    make_plan,
    plan_reasons,
    ranked_horizon,
    yearly_volatility,
)

DEFAULT = PlanSettings()
BASE = {"1d": 0.5, "20d": 0.55}


def forecasts(**p20: float) -> pl.DataFrame:
    rows = []
    for k, (symbol, p) in enumerate(p20.items()):
        common = {"symbol": symbol, "close": 100.0 + k, "atr": 2.0}
        rows += [
            common | {"horizon": "20d", "probability": p, "score": 0.5 + k / 100},
            common | {"horizon": "1d", "probability": 0.4, "score": 0.4},
        ]
    return pl.DataFrame(rows)


def vol(*pairs: tuple[str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"symbol": pl.String, "volatility": pl.Float64}, orient="row")


def plan(frame, volatility, settings=DEFAULT, withheld=()):
    return make_plan(frame, volatility, settings, ranked_by="20d", base_rates=BASE, withheld=withheld)


def test_the_best_above_the_base_rate_are_planned_ties_by_the_raw_score():
    table = plan(forecasts(A=0.60, B=0.55, C=0.70, D=0.60, E=0.2), vol(*((s, 0.2) for s in "ABCDE")))
    assert table["symbol"].to_list() == ["C", "D", "A"]  # B is at the base rate, not above it; D scores above A
    assert table["rank"].to_list() == [1, 2, 3]
    assert table["p_20d"].to_list() == [0.70, 0.60, 0.60]
    assert table["p_1d"].to_list() == [0.4] * 3
    assert plan(forecasts(A=0.60, B=0.58), vol(), PlanSettings(n=1))["symbol"].to_list() == ["A"]


def test_exits_lie_so_many_average_ranges_away():
    row = plan(forecasts(A=0.6), vol(("A", 0.2)), PlanSettings(stop_atr=1.5, target_atr=4)).row(0, named=True)
    assert (row["entry"], row["stop"], row["target"]) == (100.0, 97.0, 108.0)


def test_weights_bring_equal_volatility_up_to_their_cap():
    table = plan(forecasts(A=0.60, B=0.61, C=0.62), vol(("A", 0.20), ("B", 0.40), ("C", 0.05)))
    weight = dict(zip(table["symbol"], table["weight"], strict=True))
    assert weight == pytest.approx({"A": 0.05, "B": 0.025, "C": 0.10})  # 0.01 / 0.05 would be 0.20


def test_a_name_without_a_known_volatility_gets_no_weight():
    table = plan(forecasts(A=0.60, B=0.61), vol(("A", None)))
    assert table["weight"].to_list() == [0.0, 0.0]


@given(st.lists(st.floats(0.02, 2.0), min_size=1, max_size=12))
def test_no_plan_spends_more_than_its_gross(volatilities):
    names = [f"S{k:02d}" for k in range(len(volatilities))]
    settings = PlanSettings(position_volatility=0.05, max_weight=0.3, max_gross=0.8)
    table = plan(forecasts(**dict.fromkeys(names, 0.7)), vol(*zip(names, volatilities, strict=True)), settings)
    assert table["weight"].sum() <= 0.8 + 1e-12
    assert (table["weight"] <= 0.3).all()
    if table["weight"].sum() < 0.8 - 1e-9:  # nobody was shrunk
        expected = np.minimum(0.05 / np.array(volatilities), 0.3)
        np.testing.assert_allclose(np.sort(table["weight"]), np.sort(expected))


def test_a_withheld_horizon_shows_no_probability():
    assert plan(forecasts(A=0.6), vol(("A", 0.2)), withheld=["1d"])["p_1d"].to_list() == [None]


@pytest.mark.parametrize(
    ("rank_by", "withheld", "expected"),
    [(None, [], "20d"), (None, ["20d"], "5d"), ("1d", [], "1d"), ("20d", ["20d"], "5d")],
)
def test_the_horizon_that_ranks_is_one_that_speaks(rank_by, withheld, expected):
    assert ranked_horizon(PlanSettings(rank_by=rank_by), ["1d", "5d", "20d"], withheld) == expected


def test_a_horizon_that_is_not_run_cannot_rank():
    with pytest.raises(TradsysError, match=r"rank_by=3d; the horizons are \['1d', '5d'\]"):
        ranked_horizon(PlanSettings(rank_by="3d"), ["1d", "5d"], [])


def test_reliability_counts_what_a_loop_counts():
    rng = np.random.default_rng(5)
    p = np.round(rng.uniform(0.3, 0.7, 4000), 2)
    y = (rng.uniform(size=4000) < p).astype(int)
    found = Reliability.of(p, y, np.arange(4000), n_bins=8, min_block=5.0)
    low_B, high_B = rate_bounds(np.searchsorted(found.upper, p, side="left"), y, np.arange(4000), min_block=5.0)
    low = 0.0
    for k, upper in enumerate(found.upper):
        inside = (p > low) & (p <= upper)
        assert found.n[k] == inside.sum()
        assert found.observed[k] == pytest.approx(y[inside].mean())
        assert found.mean_predicted[k] == pytest.approx(p[inside].mean())
        assert (found.low[k], found.high[k]) == (low_B[k], high_B[k])
        low = upper
    assert found.n.sum() == 4000


def test_a_new_forecast_finds_its_bin_also_beyond_what_was_judged():
    p = np.repeat([0.2, 0.4, 0.6], 100)
    y = np.concatenate([np.arange(100) < n for n in (10, 45, 70)]).astype(int)
    found = Reliability.of(p, y, np.arange(300), n_bins=3, min_block=1.0)
    assert [found.at(v)["observed"] for v in (0.01, 0.2, 0.4, 0.6, 0.99, 1.0)] == [0.1, 0.1, 0.45, 0.7, 0.7, 0.7]


@given(st.lists(st.sampled_from([0.1, 0.5, 0.52, 0.9]), min_size=2, max_size=60), st.integers(2, 10))
def test_every_judged_forecast_lies_in_a_bin_that_counted_it(values, n_bins):
    p = np.array(values)
    found = Reliability.of(p, np.ones(len(p), dtype=int), np.arange(len(p)), n_bins=n_bins, min_block=1.0)
    assert found.n.sum() == len(p)
    for value in set(values):
        assert found.at(value)["n"] >= (p == value).sum()


def test_volatility_is_that_of_the_last_returns_a_year():
    close = 100 * np.exp(np.cumsum([0.0, 0.5, 0.01, -0.02, 0.03]))
    frame = pl.DataFrame({"symbol": ["A"] * 5 + ["B"] * 2, "time": [1, 2, 3, 4, 5, 4, 5], "close": [*close, 5.0, 6.0]})
    found = dict(yearly_volatility(frame, 3, 252.0).iter_rows())
    assert found["A"] == pytest.approx(np.std([0.01, -0.02, 0.03], ddof=1) * np.sqrt(252))
    assert found["B"] is None


def test_reasons_are_the_features_that_moved_a_row_the_most_either_way():
    moved = np.array([[0.1, -0.5, 0.2], [0.0, 0.0, -0.1]])
    reported = plan_reasons(moved, ("a", "b", "c"), 2)
    assert reported == [
        [{"name": "b", "log_odds": -0.5}, {"name": "c", "log_odds": 0.2}],
        [{"name": "c", "log_odds": -0.1}, {"name": "a", "log_odds": 0.0}],
    ]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"max_weight": 1.5}, {"stop_atr": 0}, {"n_bins": 1}, {"vol_bars": 1}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(TradsysError, match=f"plan: {next(iter(wrong))}="):
        PlanSettings(**wrong)
