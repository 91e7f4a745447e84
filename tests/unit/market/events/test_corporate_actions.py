"""Splits found by price and volume together; dividends implied by adjusted closes; events placed on bars."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.events.corporate_actions import dividends_from_adjusted, split_like, split_part, with_events
from tradsys.market.sessions import closes

N, AT = 80, 40


def history(seed: int, ratio: float = 1.0, opened: float = 0.0, *, spike: float = 1.0) -> pl.DataFrame:
    """Daily bars with a split at row AT that opens by `opened` (log) and, without one, a volume spike that fades."""
    rng = np.random.default_rng(seed)
    step = rng.normal(0, 0.01, N)
    step[AT] = opened - np.log(ratio)
    close = 100 * np.exp(np.cumsum(step))
    volume = rng.lognormal(14, 0.3, N) * np.where(np.arange(N) >= AT, ratio, 1.0)
    volume[AT : AT + 3] *= spike
    time = closes("XNYS", date(2023, 1, 3), date(2023, 12, 29))["close"][:N]
    frame = pl.DataFrame({"symbol": "AAA", "time": time, "open": close, "high": close, "low": close, "close": close})
    return frame.with_columns(volume=pl.Series(volume), stamp=pl.col("time"), adj_close=pl.col("close"))


@pytest.mark.parametrize(
    ("ratio", "opened"), [(1.5, 0.0), (1.5, 0.04), (2, 0.05), (2, -0.05), (4 / 3, 0.0), (0.1, 0.0)]
)
def test_a_split_is_found_though_its_day_moved(ratio, opened):
    found = np.flatnonzero([split_like(history(seed, ratio, opened))[AT] != 1 for seed in range(20)])
    assert len(found) >= 16  # of 20; a volume of 30 % noise hides a small ratio at times
    seed = int(found[0])
    assert (split_like(history(seed, ratio, opened)) != 1).sum() == 1
    assert split_like(history(seed, ratio, opened))[AT] == pytest.approx(ratio)


@pytest.mark.parametrize("opened", [-0.405, -0.693, 0.405])
def test_a_crash_whose_volume_falls_back_is_no_split(opened):
    assert sum((split_like(history(seed, 1.0, opened, spike=6.0)) != 1).any() for seed in range(20)) <= 3


def test_few_bars_find_nothing():
    assert (split_like(history(0).head(2)) == 1).all()
    assert len(split_like(history(0).clear())) == 0


def test_split_part_takes_splits_and_leaves_dividends():
    """10:1 at row 40 and a dividend of 2 % at row 60: the part of the split alone is a tenth before row 40."""
    bars = history(3, 10.0)
    row = pl.int_range(pl.len())
    factor = pl.when(row < AT).then(0.1).otherwise(1.0) * pl.when(row < 60).then(0.98).otherwise(1.0)
    part = split_part(bars.with_columns(adj_close=pl.col("close") * factor))
    assert part.to_list() == pytest.approx([0.1] * AT + [1.0] * (N - AT))


def test_dividends_are_what_the_adjusted_close_took_off():
    bars = history(4)
    paid = 1.5
    factor = 1 - paid / bars["close"][49]
    row = pl.int_range(pl.len())
    adjusted = bars.with_columns(adj_close=pl.col("close") * pl.when(row < 50).then(factor).otherwise(1.0))
    found = dividends_from_adjusted(adjusted)
    assert found["time"].to_list() == [bars["time"][50]]
    assert found["value"][0] == pytest.approx(paid)


def test_events_fall_due_in_the_bar_that_closes_at_or_after_them():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    time = pl.Series([start + timedelta(hours=8 * k) for k in range(4)]).cast(pl.Datetime("us", "UTC"))
    bars = pl.DataFrame({"symbol": ["A"] * 4, "time": time})
    events = pl.DataFrame(
        {
            "symbol": ["A"] * 4 + ["B"],
            "time": pl.Series([start + timedelta(hours=h) for h in (-8, 8, 9, 16, 8)]).cast(pl.Datetime("us", "UTC")),
            "value": [9.0, 1.0, 2.0, 4.0, 8.0],
        }
    )
    assert with_events(bars, events, "funding_due")["funding_due"].to_list() == [0.0, 1.0, 6.0, 0.0]
    with pytest.raises(DataError, match="due once"):
        with_events(bars, pl.concat([events, events]), "funding_due")
    with pytest.raises(DataError, match="dividend_due or funding_due"):
        with_events(bars, events, "funding")
