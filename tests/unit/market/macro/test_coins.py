"""Columns of other coins and of perpetual futures: loops as oracles, nothing later than the close."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import DataError
from tradsys.market.known import KnownSource
from tradsys.market.macro.coins import CrossSection, Peers, Perpetual

COINS = ("AAA", "BBB", "CCC", "DDD")


@dataclass(frozen=True)
class Frame:
    """A source that holds a frame."""

    frame: pl.DataFrame

    def bars(self):
        return self.frame

    def describe(self):
        return {"name": "frame", "digest": "0" * 64, "symbols": sorted(self.frame["symbol"].unique())}


def test_the_cross_section_is_the_loop():
    bars = walk_bars(60, COINS).filter((pl.col("symbol") != "DDD") | (pl.col("close") > 100))  # a coin with holes
    joined = CrossSection(hours=[5]).join(bars)
    assert joined.select(bars.columns).equals(bars)
    closes = {(r["symbol"], r["time"]): r["close"] for r in bars.rows(named=True)}
    for row in joined.rows(named=True):
        moves = {
            s: np.log(closes[s, row["time"]] / closes[s, row["time"] - timedelta(hours=5)])
            for s in COINS
            if (s, row["time"]) in closes and (s, row["time"] - timedelta(hours=5)) in closes
        }
        values = np.array(list(moves.values()))
        if len(values) < 3:
            assert row["coins_up_5"] is row["coins_rank_5"] is None
            continue
        assert row["coins_up_5"] == (values > 0).mean()
        assert row["coins_median_5"] == pytest.approx(np.median(values))
        assert row["coins_spread_5"] == pytest.approx(values.std(ddof=1))
        if row["symbol"] in moves:
            below = (values < moves[row["symbol"]]).sum()
            assert row["coins_rank_5"] == pytest.approx((below + 0.5) / len(values))


def test_a_universe_stands_beside_bars_that_are_none_of_it():
    universe, bars = walk_bars(60, COINS, seed=1), walk_bars(60, ("ZZZ",))
    joined = CrossSection("breadth", [5], Frame(universe), ranks=False).join(bars)
    inside = CrossSection("breadth", [5], ranks=False).join(universe).filter(symbol="AAA")
    assert joined["breadth_median_5"].to_list() == inside["breadth_median_5"].to_list()


@pytest.mark.parametrize("columns", [CrossSection(hours=[5, 12]), Peers(COINS, hours=[5, 12])])
def test_what_comes_later_changes_nothing_before(columns):
    bars = walk_bars(80, COINS)
    cut = bars["time"].unique().sort()[50]
    whole = columns.join(bars).filter(pl.col("time") <= cut)
    assert columns.join(bars.filter(pl.col("time") <= cut)).equals(whole)


def test_peers_are_the_loop_over_the_other_coins():
    bars = walk_bars(60, COINS).filter((pl.col("symbol") != "DDD") | (pl.col("close") > 100))  # a coin with holes
    joined = Peers([*COINS, "EEE"], hours=[1, 5]).join(bars)
    assert joined.select(bars.columns).equals(bars)
    closes = {(r["symbol"], r["time"]): r["close"] for r in bars.rows(named=True)}
    absent = 0
    for row in joined.rows(named=True):
        for k, other in enumerate((*COINS, "EEE")):
            now = closes.get((other, row["time"]))
            before = [closes.get((other, row["time"] - timedelta(hours=h))) for h in (1, 5)]
            known = other != row["symbol"] and now is not None and None not in before
            moves = [np.log(now / b) for b in before] if known else [0.0, 0.0]
            assert [row[f"peer_{k}_{h}"] for h in (1, 5)] == pytest.approx(moves)
            assert row[f"peer_{k}_known"] == known
            absent += other == "DDD" and row["symbol"] != "DDD" and not known
    assert absent > 20, "the coin with holes never left its place empty"


def test_peers_of_a_source_and_wrong_places():
    universe = walk_bars(60, COINS, seed=1)
    joined = Peers(COINS, "other", [5], Frame(universe)).join(walk_bars(60, ("ZZZ",)))
    assert joined["other_3_known"].to_list() == [0.0] * 5 + [1.0] * 55
    for symbols in ([], ["AAA", "AAA"]):
        with pytest.raises(DataError, match="a coin is listed once"):
            Peers(symbols)


def test_basis_and_funding(tmp_path):
    bars = walk_bars(40, ("AAA", "BBB"))
    spot = bars.filter(symbol="AAA")
    future = spot.with_columns(pl.col("open", "high", "low", "close") * 1.001)[:-2]
    settled = spot["time"][::8]
    rates = pl.DataFrame({"available_at": settled, "funding_rate": [1e-4 * (k + 1) for k in range(len(settled))]})
    rates.write_parquet(tmp_path / "funding.parquet")
    funding = KnownSource(str(tmp_path / "funding.parquet"), "wide", {"funding_rate": "aaa_funding"}, max_age_days=2)
    joined = Perpetual("aaa", "AAA", Frame(future), funding, n_mean=2).join(bars)
    for symbol in ("AAA", "BBB"):
        own = joined.filter(symbol=symbol)
        assert own["aaa_basis_bps"][:-2].to_list() == pytest.approx([10.0] * 38)
        assert own["aaa_basis_bps"][-2:].null_count() == 2, "no future, no basis"
        assert own["aaa_funding_bps"][7:10].to_list() == pytest.approx([1.0, 2.0, 2.0]), "from its settlement on"
        assert own["aaa_funding_mean_bps"][9] == pytest.approx(1.5)
        assert own["aaa_funding_mean_bps"][3] is None


def test_wrong_settings_and_columns_that_clash_are_one_line():
    with pytest.raises(DataError, match="whole numbers of at least 1"):
        CrossSection(hours=[0])
    bars = CrossSection(hours=[5]).join(walk_bars(20, COINS))
    with pytest.raises(DataError, match="names must be unique"):
        CrossSection(hours=[5]).join(bars)
