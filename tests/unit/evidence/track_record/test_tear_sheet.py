"""The tear sheet's tables against QuantStats, hand-worked records, and the coverage that its intervals claim."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.evidence.track_record.tear_sheet import (
    activity,
    by_group,
    drawdown_episodes,
    monthly_returns,
    rolling,
    trade_distribution,
)

ORACLE = json.loads((Path(__file__).parent / "quantstats_oracle.json").read_text(encoding="utf-8"))
DAYS = np.arange(np.datetime64(ORACLE["first_day"]), np.datetime64(ORACLE["first_day"]) + len(ORACLE["returns"]))
RETURNS = np.array(ORACLE["returns"])


def test_months_and_years_are_quantstats():
    years = monthly_returns(DAYS, RETURNS)["years"]
    assert [row["year"] for row in years] == [int(year) for year in ORACLE["monthly"]]
    for row, theirs in zip(years, ORACLE["monthly"].values(), strict=True):
        ours = [
            0.0 if value is None else value for value in row["months"]
        ]  # QuantStats shows a month without days as 0
        assert [*ours, row["total"]] == pytest.approx(theirs, abs=1e-12)


def test_rolling_sharpe_and_volatility_are_quantstats():
    found = rolling(DAYS, RETURNS, 365)
    for name in ("sharpe", "volatility"):
        theirs = [ORACLE[name][day] for day in found["time"]]
        assert found[name]["value"] == pytest.approx(theirs, rel=6e-5)
    assert found["time"][-1] == str(DAYS[-1])


def test_drawdowns_are_quantstats():
    ours = drawdown_episodes(DAYS, RETURNS, most=6)
    assert [one["trough"] for one in ours] == [row["valley"] for row in ORACLE["drawdowns"]]
    assert [-100 * one["depth"] for one in ours] == pytest.approx([row["max"] for row in ORACLE["drawdowns"]], abs=1e-9)
    next_day = [
        str(np.datetime64(row["end"]) + 1) for row in ORACLE["drawdowns"]
    ]  # theirs ends with its last day below
    assert [one["recovered"] for one in ours if one["recovered"]] == [
        day for one, day in zip(ours, next_day, strict=True) if one["recovered"]
    ]


def test_a_fall_on_the_first_day_counts_and_one_at_the_end_is_not_over():
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-01-06"))
    first, last = drawdown_episodes(days, np.array([-0.1, 0.2, 0.0, -0.05, 0.01]))
    assert (first["peak"], first["trough"], first["recovered"], first["days"]) == (None, "2024-01-01", "2024-01-02", 2)
    assert first["depth"] == pytest.approx(0.1)
    assert (last["peak"], last["trough"], last["recovered"], last["days"]) == ("2024-01-03", "2024-01-04", None, 2)


@given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=60))
def test_the_deepest_episode_is_the_maximum_drawdown(returns):
    values = np.array(returns)
    equity = np.concatenate([[1.0], np.cumprod(1 + values)])
    deepest = float((1 - equity / np.maximum.accumulate(equity)).max())
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-01-01") + len(values))
    found = drawdown_episodes(days, values)
    assert (found[0]["depth"] if found else 0.0) == pytest.approx(deepest, abs=1e-9)


def test_every_figure_has_an_interval_or_the_reason_why_not():
    short = RETURNS[:80]
    months = monthly_returns(DAYS[:80], short)
    assert months["mean"]["low"] is None
    assert "months; an interval needs 30" in months["mean"]["reason"]
    assert months["positive"]["low"] < months["positive"]["value"] < months["positive"]["high"]
    assert "62 days; a window has 63" in rolling(DAYS[:62], RETURNS[:62], 365)["reason"]
    assert trade_distribution(np.array([]))["mean"]["reason"] == "no trade was closed"
    trades = trade_distribution(RETURNS)
    assert sum(trades["counts"]) == trades["n"] == len(RETURNS)
    assert trades["mean"]["low"] < trades["mean"]["value"] < trades["mean"]["high"]
    assert rolling(DAYS, np.zeros(len(DAYS)), 365)["sharpe"]["value"][0] is None
    assert rolling(DAYS, RETURNS, 365)["volatility"].keys() == {"value"}, "no interval of a volatility holds up"


def test_activity_keeps_the_sum_of_turnover():
    turnover = np.abs(RETURNS)
    found = activity(DAYS, np.full(len(DAYS), 0.5), turnover)
    assert sum(found["turnover"]) == pytest.approx(turnover.sum())
    assert set(found["exposure"]) == {0.5}
    assert len(found["time"]) == len(found["turnover"]) == 160


def test_no_hour_of_noise_stands_out_more_often_than_the_level_says():
    """Of 200 records without any effect, at most about 5 % show one of 6 groups whose interval excludes zero."""
    rng = np.random.default_rng(5)
    hour = np.tile(np.arange(6), 90)
    names = {k: str(k) for k in range(6)}
    wrong = 0
    for _ in range(200):
        rows = by_group(rng.normal(size=len(hour)), hour, names)
        wrong += any(row["mean"]["low"] > 0 or row["mean"]["high"] < 0 for row in rows)
    assert wrong / 200 < 0.085


def test_a_planted_hour_is_found():
    rng = np.random.default_rng(7)
    hour = np.tile(np.arange(24), 200)
    rows = by_group(rng.normal(size=len(hour)) + 1.0 * (hour == 14), hour, {k: f"{k:02d}" for k in range(24)})
    assert [row["name"] for row in rows if row["mean"]["low"] > 0] == ["14"]
    assert rows[3]["n"] == 200
