"""Books of a panel: held for their horizon, judged with their trials, the market beside them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tradsys.config.compose import build, compose
from tradsys.core.errors import TradsysError
from tradsys.portfolio.book import Book
from tradsys.portfolio.book_simulator import simulate_book
from tradsys.portfolio.costs import Costs
from tradsys.research.panel import books
from tradsys.research.panel.books import BookSettings, LedgerContext, run_books
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.pipeline.trial_ledger import TrialLedger

START = datetime(2020, 1, 6, 21, tzinfo=UTC)
FREE = Costs(fee_bps=0.0, slippage_bps=0.0)
JUDGED = Evaluation(n_draws=200, min_trades=5)
SETTINGS = BookSettings({"best": Book("top_k", k=3), "pair": Book("long_short", k=3)})


def market(n_days=300, n_names=12, drift=0.0, seed=1):
    """Bars of names and SPY, and scores that know `drift` of each name's next day."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(n_days, n_names))
    step = 0.01 * rng.normal(size=(n_days, n_names))
    step[1:] += drift * known[:-1]
    close = 50 * np.exp(np.cumsum(step, axis=0))
    frames = []
    for s in range(n_names + 1):
        own = close[:, s] if s < n_names else close.mean(axis=1)
        open_ = np.concatenate([[own[0]], own[:-1]])  # opens at the close before: a whole day is earned
        frames.append(
            pl.DataFrame(
                {
                    "symbol": f"N{s:02d}" if s < n_names else "SPY",
                    "time": [START + timedelta(days=t) for t in range(n_days)],
                    "open": open_,
                    "high": np.maximum(open_, own),
                    "low": np.minimum(open_, own),
                    "close": own,
                    "volume": 1e6,
                },
                schema_overrides={"time": pl.Datetime("us", "UTC")},
            )
        )
    bars = pl.concat(frames)
    scores = bars.filter(pl.col("symbol") != "SPY").select("symbol", "time", score=pl.Series(known.T.ravel()))
    return bars, pl.concat([scores.with_columns(horizon=pl.lit(h)) for h in ("1d", "5d")])


def booked(bars, predictions, **more):
    given = {
        "horizon_bars": {"1d": 1, "5d": 5},
        "skill_low": {"1d": 0.01, "5d": None},
        "costs": FREE,
        "evaluation": JUDGED,
        "market_symbol": "SPY",
    } | more
    return run_books(bars, predictions, SETTINGS, **given)


def test_each_book_is_run_on_each_horizon_and_held_for_it():
    bars, predictions = market()
    found = booked(bars, predictions)
    assert [row["name"] for row in found["rows"]] == ["best 1d", "pair 1d", "best 5d", "pair 5d"]
    one = predictions.filter(pl.col("horizon") == "5d")
    alone = simulate_book(bars, Book("top_k", 3, 5).weights(one), FREE)
    assert found["rows"][2]["performance"]["total_return"] == pytest.approx(alone.daily["equity"][-1] - 1)
    assert found["equity"]["curves"]["best 5d"][-1] == pytest.approx(alone.daily["equity"][-1])
    assert len(found["equity"]["time"]) == 300


def test_a_planted_edge_is_earned_and_noise_is_not():
    found = booked(*market(drift=0.004))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["pair 1d"]["performance"]["sharpe"]["low"] > 0
    assert rows["pair 1d"]["verdict"]["kind"] == "edge"
    assert rows["pair 5d"]["verdict"]["kind"] == "edge"  # the same scores; that the model has no known skill is no veto
    idle = booked(*market(drift=0.0))
    assert all(row["verdict"]["kind"] != "edge" for row in idle["rows"])


def test_a_short_of_shares_earns_no_dividend_that_nobody_knows_of():
    """Bars of weekdays alone and without events: the pair is its long leg and says so; a made-up market pays none."""
    bars, predictions = market(drift=0.004)
    workdays = pl.col("time").dt.weekday() < 6
    bars, predictions = bars.filter(workdays), predictions.filter(workdays)
    rows = {row["name"]: row for row in booked(bars, predictions)["rows"]}
    made = {row["name"]: row for row in booked(bars, predictions, made_up=True)["rows"]}
    assert rows["pair 1d"]["unsold"] == "12 shares were not sold short, their dividends are not known"
    assert [row["unsold"] for row in made.values()] == [""] * 4
    assert rows["best 1d"]["unsold"] == ""
    assert rows["best 1d"]["performance"]["total_return"] == made["best 1d"]["performance"]["total_return"]
    assert rows["pair 1d"]["performance"]["total_return"] < made["pair 1d"]["performance"]["total_return"]


def test_no_configuration_sells_shares_whose_dividends_are_unknown():
    assert [
        path.name
        for path in (Path(__file__).parents[4] / "conf").rglob("*.yaml")
        if "price_only_shorts: true" in path.read_text()
    ] == []


def test_dividends_are_no_edge_over_the_market_that_pays_them():
    """A book of all names is the market: what its shares pay the mean of all names receives too."""
    bars, predictions = market()
    bars = bars.filter(pl.col("symbol") != "SPY")
    money = pl.col("close").shift(1).over("symbol") * 0.01
    due = pl.int_range(pl.len()).over("symbol") % 20 == 19
    paying = bars.with_columns(dividend_due=pl.when(due).then(money).otherwise(0.0))
    every = BookSettings({"all": Book("top_k", k=12)})
    given = {"horizon_bars": {"1d": 1}, "skill_low": {}, "costs": FREE, "evaluation": JUDGED}
    scores = predictions.filter(pl.col("horizon") == "1d")
    bare, paid = (run_books(frame, scores, every, **given)["rows"][0] for frame in (bars, paying))
    assert paid["performance"]["total_return"] > bare["performance"]["total_return"] + 0.1
    assert bare["verdict"]["test"]["statistic"] < 1.5
    assert paid["verdict"]["test"]["statistic"] < 1.5


def test_members_of_a_falling_market_are_no_edge():
    """Names that no book could hold are no alternative to it: here they lose half a percent a day."""
    bars, predictions = market()
    member = pl.col("symbol") < "N06"
    fall = pl.int_range(pl.len()).over("symbol") * -0.005
    prices = [
        pl.when(member).then(pl.col(c)).otherwise(pl.col(c) * fall.exp()) for c in ("open", "high", "low", "close")
    ]
    bars = bars.filter(pl.col("symbol") != "SPY").with_columns(prices)
    every = BookSettings({"all": Book("top_k", k=6)})
    scores = predictions.filter((pl.col("horizon") == "1d") & member)
    given = {"horizon_bars": {"1d": 1}, "skill_low": {}, "costs": FREE, "evaluation": JUDGED}
    assert run_books(bars, scores, every, **given)["rows"][0]["verdict"]["test"]["statistic"] < 1.5


def test_costs_are_what_turns_an_edge_around():
    bars, predictions = market(drift=0.002)
    free, dear = booked(bars, predictions), booked(bars, predictions, costs=Costs(fee_bps=100.0, slippage_bps=0.0))
    for before, after in zip(free["rows"], dear["rows"], strict=True):
        assert after["performance"]["total_return"] < before["performance"]["total_return"]
        assert after["performance"]["costs_paid"] > 0.1
        assert before["performance"]["costs_paid"] == 0.0


def test_the_market_stands_beside_and_nobody_sees_a_bar_after_the_last_decision():
    bars, predictions = market()
    early = predictions.filter(pl.col("time") < START + timedelta(days=200))
    found = booked(bars, early)
    spy = bars.filter(pl.col("symbol") == "SPY").filter(pl.col("time") < START + timedelta(days=200))
    held = spy["close"][-1] / spy["open"][1] - 1
    assert found["benchmark"]["performance"]["total_return"] == pytest.approx(held)
    assert found["equity"]["time"][-1] == str((START + timedelta(days=199)).date())
    assert booked(bars, early, market_symbol=None)["benchmark"] is None


def test_every_look_enters_the_ledger_before_it_is_judged(tmp_path):
    bars, predictions = market()
    ledger = TrialLedger(tmp_path / "ledger.db")
    source = {"data": {"digest": "d" * 64}, "config_digest": "c", "code_sha": "s"}
    first = booked(bars, predictions, context=LedgerContext(ledger, source, "one"))
    assert len(ledger.entries()) == 4
    other = predictions.with_columns(score=-pl.col("score"))
    second = booked(bars, other, context=LedgerContext(ledger, source, "two"))
    assert len(ledger.entries()) == 8
    assert second["deflation"]["n_trials"] > first["deflation"]["n_trials"]
    luck = [found["rows"][0]["performance"]["expected_max_sharpe"] for found in (first, second)]
    assert luck[1] > luck[0]


def test_a_death_costs_what_the_costs_say():
    bars, predictions = market(n_days=60)
    dying = "N00"
    cut = bars.filter((pl.col("symbol") != dying) | (pl.col("time") < START + timedelta(days=30)))
    scored = predictions.filter((pl.col("symbol") != dying) | (pl.col("time") < START + timedelta(days=30)))
    scored = scored.with_columns(score=pl.when(pl.col("symbol") == dying).then(9.0).otherwise(pl.col("score")))
    best = {}
    for lost in (0.0, -0.5):
        costs = replace(FREE, dead_after_bars=5, delisting_return=lost)
        found = run_books(
            cut, scored, SETTINGS, horizon_bars={"1d": 1, "5d": 5}, skill_low={}, costs=costs, evaluation=JUDGED
        )
        best[lost] = {row["name"]: row for row in found["rows"]}["best 1d"]
    assert best[-0.5]["n_died"] == best[0.0]["n_died"] == 1
    assert best[-0.5]["performance"]["total_return"] < best[0.0]["performance"]["total_return"] - 0.1


def test_the_configured_books_are_built_and_bad_settings_refused():
    settings = build(compose("daily", ["+experiment=foundry"]))["book"]
    assert list(settings.books) == ["top_k", "long_short", "rank_weighted"]
    with pytest.raises(TradsysError, match="books: "):
        BookSettings({})
    with pytest.raises(TradsysError, match="capacity_share=0"):
        BookSettings({"a": Book()}, capacity_share=0.0)


def test_a_death_costs_what_the_costs_say_and_the_old_keys_of_the_book_are_named(caplog):
    costs = Costs(0, 0, dead_after_bars=7, delisting_return=-0.2)
    assert SETTINGS.delisting_rule(costs) == {"dead_after_bars": 7, "delisting_return": -0.2}
    assert not caplog.records
    old = BookSettings({"best": Book()}, dead_after_bars=5)
    assert old.delisting_rule(costs) == {"dead_after_bars": 5, "delisting_return": -0.2}
    assert "book.dead_after_bars=5 is set; its new name is costs.dead_after_bars" in caplog.text


def test_a_long_book_with_an_edge_that_earned_less_than_the_market_says_so():
    held = {"name": "hold SPY", "performance": {"total_return": 0.3}}
    edge = {"verdict": {"kind": "edge"}, "performance": {"total_return": 0.2}}
    assert "it earned 20.0 % where `hold SPY` earned 30.0 %" in books._behind(edge, held, net=1.0)
    assert books._behind(edge, held, net=0.0) == ""  # a neutral book is no alternative to holding the market
    assert books._behind(edge | {"performance": {"total_return": 0.4}}, held, net=1.0) == ""
    assert books._behind(edge | {"verdict": {"kind": "no edge"}}, held, net=1.0) == ""
