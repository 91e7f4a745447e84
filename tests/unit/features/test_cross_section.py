from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tradsys.core.errors import DataError
from tradsys.features.cross_section import with_ranks
from tradsys.features.feature_set import FeatureSet
from tradsys.features.price import LogReturn
from tradsys.features.side import MomentumSide
from tradsys.features.volatility import Volatility

VALUES = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 2.0, 2.5, 1e30, -3.0])


@dataclass(frozen=True)
class Joined:
    """A feature that reads a column right of `volume`."""

    columns: tuple[str, ...] = ("pe",)
    name: str = "known_pe"
    warmup: int = 0

    def expr(self):
        return pl.col("pe")


def slow_ranks(values_R, symbol_R, time_R, market):
    """The definition, one time after another."""
    out = np.full(len(values_R), np.nan)
    for t in np.unique(time_R):
        rows = np.flatnonzero((time_R == t) & (symbol_R != market) & np.isfinite(values_R))
        if len(rows):
            out[rows] = (rankdata(values_R[rows]) - 0.5) / len(rows)
    return out


@given(st.data(), st.integers(1, 7), st.integers(1, 5), st.sampled_from([None, "S0", "S3", "absent"]))
def test_ranks_are_those_of_a_loop_over_dates(data, n_symbols, n_times, market):
    rows = data.draw(st.lists(st.tuples(VALUES, VALUES, st.booleans()), min_size=35, max_size=35))
    pairs = [(f"S{s}", t) for s in range(n_symbols) for t in range(n_times)]
    kept = [(s, t, a, b) for (s, t), (a, b, there) in zip(pairs, rows, strict=False) if there or (s, t) == ("S0", 0)]
    symbol, time, a, b = (np.array(x) for x in zip(*kept, strict=True))
    values = pl.DataFrame({"a": a.astype(np.float32), "b": b.astype(np.float32)})
    keys = pl.DataFrame({"symbol": symbol, "time": time})
    got = with_ranks(values, keys, ["b", "a"], market)
    assert got.columns == ["a", "b", "b_rank", "a_rank"]
    for name in ("a", "b"):
        want = slow_ranks(values[name].to_numpy(), symbol, time, market)
        np.testing.assert_allclose(got[f"{name}_rank"].fill_null(np.nan).to_numpy(), want.astype(np.float32))


def test_a_set_appends_ranks_and_leaves_out_the_market_and_the_unknown(make_walk_bars):
    long = make_walk_bars(60, ("AAA", "BBB", "CCC", "SPY"), seed=3)
    young = make_walk_bars(60, ("NEW",), seed=9).slice(40)
    bars = pl.concat([long, young]).sort("symbol", "time")
    features = FeatureSet([LogReturn(5)], extra=[Volatility(20)], ranks=["vol_20", "ret_5"], **rules("SPY"))
    table = features.table(bars)
    assert table.names == features.names == ("ret_5", "vol_20", "vol_20_rank", "ret_5_rank")
    assert features.warmup == 20
    symbol = np.array(table.symbols)[table.symbol]
    for name in ("vol_20", "ret_5"):
        want = slow_ranks(table.column(name), symbol, table.time, "SPY")
        np.testing.assert_allclose(table.column(f"{name}_rank"), want.astype(np.float32))
    assert np.isnan(table.values[symbol == "SPY", 2:]).all()
    ranked = table.column("ret_5_rank")[np.isfinite(table.column("ret_5_rank"))]
    # three names until the young one has its five bars, four then; a row that is not known ranks nobody down
    assert set(np.round(ranked * 24)) == {4, 12, 20, 3, 9, 15, 21}


def rules(market=None):
    return {"max_gap_minutes": None, "market_symbol": market}


def test_ranks_are_stored_and_sets_without_them_keep_their_hash():
    bare = FeatureSet([LogReturn(5), Volatility(20)], **rules("SPY"))
    ranked = FeatureSet([LogReturn(5), Volatility(20)], ranks=["vol_20"], **rules("SPY"))
    assert "ranks" not in bare.to_json()
    assert bare.schema_hash() == "34ed0d2adb32ce8ae6598c29fe2f9b5e74f9a7ce3e375603bc197715e6aabb04"
    again = FeatureSet.from_json(ranked.to_json())
    assert (again.names, again.ranks) == (("ret_5", "vol_20", "vol_20_rank"), ("vol_20",))
    assert again.schema_hash() == ranked.schema_hash() != bare.schema_hash()


def test_a_copy_keeps_ranks_and_a_side_alone_needs_none(make_walk_bars):
    bars = make_walk_bars(80, ("AAA", "BBB"))
    features = FeatureSet([LogReturn(5), MomentumSide(10)], ranks=["ret_5"], **rules())
    assert features.fit(bars).names == ("ret_5", "side", "ret_5_rank")
    assert features.like([Volatility(3), LogReturn(5)]).names == ("vol_3", "ret_5", "ret_5_rank")
    assert features.like([Volatility(3)]).ranks == ()
    np.testing.assert_array_equal(features.side(bars), features.table(bars).side())


def test_ranks_that_cannot_be_are_refused():
    with pytest.raises(DataError, match=r"ranks of \['ret_6'\], which are no features of the set; .*\['ret_5'\]"):
        FeatureSet([LogReturn(5)], ranks=["ret_6"], **rules())
    with pytest.raises(DataError, match=r"ranks of \['ret_5_rank'\]"):
        FeatureSet([LogReturn(5)], ranks=["ret_5", "ret_5_rank"], **rules())
    with pytest.raises(DataError, match=r"names appear twice: \['ret_5_rank'\]"):
        FeatureSet([LogReturn(5)], ranks=["ret_5", "ret_5"], **rules())


def test_columns_right_of_volume_reach_the_features_that_read_them(make_walk_bars):
    bars = make_walk_bars(40, ("AAA", "BBB")).with_columns(pe=pl.int_range(80).cast(pl.Int64))
    features = FeatureSet([LogReturn(5), Joined()], ranks=["known_pe"], **rules())
    assert features.columns == ("pe",)
    table = features.table(bars)
    np.testing.assert_array_equal(table.column("known_pe"), np.arange(80))
    assert set(table.column("known_pe_rank")) == {0.25, 0.75}
    holed = bars.with_columns(pe=pl.when(pl.col("pe") == 7).then(None).otherwise(pl.col("pe")))
    assert np.isnan(features.table(holed).column("known_pe")).nonzero()[0].tolist() == [7]
    late = pl.when(pl.int_range(80) % 40 < 20).then("time").otherwise(pl.col("time") + timedelta(days=9))
    gapped = FeatureSet([Joined()], max_gap_minutes=60).table(bars.with_columns(time=late))
    np.testing.assert_array_equal(gapped.column("known_pe"), np.arange(80))
    assert features.fit(bars).columns == ("pe",)
    with pytest.raises(DataError, match=r"\['known_pe'\] read columns \['pe'\], which the bars lack"):
        features.table(bars.drop("pe"))
    prices = FeatureSet([Joined(columns=("close",)), Joined(name="other")], **rules())
    assert prices.columns == ("pe",), "what every bar has is no further column"
    assert prices.table(bars).values.shape == (80, 2)
    with pytest.raises(DataError, match=r"\['market_close'\] are read as numeric columns of the bars"):
        FeatureSet([Joined(columns=("market_close",))], **rules())
    with pytest.raises(DataError, match="pe is String; columns that features read are numbers"):
        features.table(bars.with_columns(pe=pl.lit("12")))


def test_features_by_source_stand_between_the_list_and_the_extras():
    made = FeatureSet([LogReturn(5)], extra=[Volatility(3)], sources={"a": [Joined()], "b": [LogReturn(9)]}, **rules())
    assert made.names == ("ret_5", "known_pe", "ret_9", "vol_3")
