"""What a backtest's tear sheet holds, and how much of it a page can carry."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tests.unit.reports.sample_tear_sheet import tear_sheet
from tradsys.research.pipeline.records import tear_sheet as module

START = date(2023, 1, 1)


@pytest.fixture(scope="module")
def sheet():
    rng = np.random.default_rng(1)
    return tear_sheet({"a": rng.normal(0, 0.01, 200), "idle": np.zeros(200)}, START, "AAA")


def test_a_strategy_that_traded_has_every_part_and_an_idle_one_none(sheet):
    assert list(sheet["strategies"]) == ["a"]
    parts = sheet["strategies"]["a"]
    assert set(parts) == {"months", "rolling", "activity", "drawdowns", "distribution", "groups"}
    assert set(parts["groups"]) == {"weekday", "regime"}, "daily bars have no hours"
    assert {row["name"]: row["n"] for row in parts["groups"]["regime"]} == {"calm": 29, "storm": 31}
    assert [row["name"] for row in parts["groups"]["weekday"]] == list(module.tear_sheet.WEEKDAYS)
    assert parts["groups"]["weekday"][6]["n"] == 29, "2023-01-01 was a Sunday"


def test_trades_are_columns_whose_names_are_positions(sheet):
    trades = sheet["trades"]
    assert trades["n"] == trades["n_shown"] == len(trades["net_return"]) == 60
    assert trades["reason_names"] == ["stop_loss", "take_profit"]
    assert set(trades["reason"]) == {0, 1}
    assert trades["entry_time"] == sorted(trades["entry_time"])
    assert len(sheet["prices"]["AAA"]["close"]) <= module.N_PRICES


def test_of_too_many_trades_the_first_and_the_last_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_TRADES", 20)
    cut = tear_sheet({"a": np.random.default_rng(1).normal(0, 0.01, 200)}, START, "AAA")["trades"]
    assert (cut["n"], cut["n_shown"], len(cut["side"])) == (60, 20, 20)


def test_a_bar_belongs_to_the_hour_in_which_it_ends():
    """A bar stamped 15:00 was earned between 14:00 and 15:00: hour 14."""
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=k + 1) for k in range(24 * 40)]
    returns = np.where([t.hour == 15 for t in times], 0.01, 0.0) + np.tile([1e-6, -1e-6], len(times) // 2)
    opened = pl.Series(times).dt.offset_by("-1us").dt.hour().to_numpy()
    rows = {row["name"]: row["mean"]["value"] for row in module._by_hour(opened, returns, 0.95)}
    assert max(rows, key=rows.__getitem__) == "14"
    assert len(rows) == 24
