import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import walk_bars
from tradsys.core.errors import TradsysError
from tradsys.core.protocols import Labeller
from tradsys.labels.explosion import Explosion, best_move, explosion


def panel(seed, n=120, symbols=("AAA", "BBB", "CCC"), gaps=True):
    """Walks of which BBB dies half-way, CCC a few bars before the end; AAA has a gap, and some prices are missing."""
    rng = np.random.default_rng(seed)
    bars = walk_bars(n, symbols, seed=seed).with_columns(
        segment=pl.lit(0, dtype=pl.Int64), row=pl.int_range(n).over("symbol")
    )
    until = {"AAA": n, "BBB": n // 2, "CCC": n - 3}
    bars = bars.filter(pl.col("row") < pl.col("symbol").replace_strict(until, return_dtype=pl.Int64))
    if gaps:
        bars = bars.with_columns(segment=pl.when(pl.col("symbol") == "AAA").then(pl.col("row") // 50).otherwise(0))
    for name in ("open", "high", "close"):
        values = bars[name].to_numpy().copy()
        values[rng.choice(bars.height, 4, replace=False)] = np.nan
        bars = bars.with_columns(pl.Series(name, values))
    return bars.drop("row")


def plain(bars, *, rise, horizon_bars, dead_after_bars):
    """(y, end, ret, best move) of each row by two loops that do nothing clever."""
    clock = sorted(set(bars["time"]))
    rows = list(bars.select("symbol", "segment", "time", "open", "high", "close").iter_rows())
    out = []
    for t, (symbol, segment, *_) in enumerate(rows):
        own = [i for i, row in enumerate(rows) if row[0] == symbol]
        silent = sum(moment > rows[own[-1]][2] for moment in clock)
        end = t + horizon_bars
        if end > own[-1]:
            end = own[-1] if silent >= dead_after_bars and own[-1] > t else -1
        if end < 0 or any(rows[j][1] != segment for j in range(t, end + 1)):
            out.append((-1, -1, math.nan, math.nan))
            continue
        highs, entry, close = [rows[j][4] for j in range(t + 1, end + 1)], rows[t + 1][3], rows[end][5]
        if any(math.isnan(x) for x in (*highs, entry)):
            out.append((-1, -1, math.nan, math.nan))
            continue
        reached = any(high >= entry * (1 + rise) for high in highs)
        move = math.log(max(highs) / entry)
        out.append(
            (-1, -1, math.nan, move) if math.isnan(close) else (int(reached), end, math.log(close / entry), move)
        )
    return tuple(np.array(column) for column in zip(*out, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rise", "horizon", "dead"), [(0.02, 8, 5), (0.001, 1, 2), (0.03, 30, 40)])
def test_equals_two_loops(seed, rise, horizon, dead):
    bars = panel(seed)
    sizes = {"rise": rise, "horizon_bars": horizon, "dead_after_bars": dead}
    labels = explosion(bars, **sizes)
    y, end, ret, move = plain(bars, **sizes)
    np.testing.assert_array_equal(labels.y, y)
    np.testing.assert_array_equal(labels.end, end)
    np.testing.assert_allclose(labels.ret, ret, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(labels.weight, (y >= 0).astype(float))
    np.testing.assert_allclose(best_move(bars, horizon, dead_after_bars=dead), move, rtol=0, atol=1e-14)
    assert labels.y.dtype == labels.end.dtype == np.int64
    assert {0, 1} <= set(y)


@given(st.integers(0, 10_000), st.floats(0.001, 0.2), st.integers(1, 15), st.integers(1, 20))
def test_any_panel_equals_two_loops(seed, rise, horizon, dead):
    bars = panel(seed, n=30)
    labels = explosion(bars, rise=rise, horizon_bars=horizon, dead_after_bars=dead)
    y, end, ret, _ = plain(bars, rise=rise, horizon_bars=horizon, dead_after_bars=dead)
    np.testing.assert_array_equal(labels.y, y)
    np.testing.assert_array_equal(labels.end, end)
    np.testing.assert_allclose(labels.ret, ret, rtol=0, atol=1e-14)


def flat(closes, highs=None, symbol="DIE"):
    n = len(closes)
    time = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 3, 1), "1d", time_zone="UTC", eager=True)[:n]
    high = closes if highs is None else highs
    return pl.DataFrame({"symbol": [symbol] * n, "time": time, "open": closes, "high": high, "low": closes,
                         "close": closes, "volume": [1.0] * n}).with_columns(pl.col(pl.Float64))  # fmt: skip


def test_a_death_by_hand_is_a_loss_and_no_missing_row():
    """100, 100, 60, 35 and gone; another lives on. The holder from the second bar's open loses 65 % and is no gap."""
    bars = pl.concat([flat([100.0, 100.0, 60.0, 35.0]), flat([7.0] * 12, symbol="LIVE")])
    labels = explosion(bars, rise=0.5, horizon_bars=5, dead_after_bars=8)  # eight sessions follow its last bar
    assert labels.y[:4].tolist() == [0, 0, 0, -1]
    assert labels.end[:4].tolist() == [3, 3, 3, -1]
    np.testing.assert_allclose(labels.ret[:3], np.log([0.35, 35 / 60, 1.0]))
    lost = explosion(bars, rise=0.5, horizon_bars=5, dead_after_bars=8, delisting_return=-0.3)
    np.testing.assert_allclose(lost.ret[:3], np.log(np.array([0.35, 35 / 60, 1.0]) * 0.7))
    # with dead_after_bars=9 it may yet come back, and nothing is known
    assert (explosion(bars, rise=0.5, horizon_bars=5, dead_after_bars=9).y[:4] == -1).all()
    # the living at the data's end are unresolved, not dead
    assert labels.y[4:].tolist() == [0] * 7 + [-1] * 5


def test_a_rise_before_death_counts_and_its_holder_still_loses():
    bars = pl.concat([flat([10.0, 10.0, 15.0, 8.0]), flat([7.0] * 12, symbol="LIVE")])
    labels = explosion(bars, rise=0.5, horizon_bars=9, dead_after_bars=3)
    assert labels.y[:3].tolist() == [1, 0, 0]
    assert labels.ret[0] == pytest.approx(math.log(0.8))


def test_a_bar_without_trades_is_no_entry_no_rise_and_no_exit():
    """Volumes say which of 10, 10, 16, 11, 12 traded; entry at the first that did, the exit waits for one that does."""

    def labelled(volume):
        bars = flat([10.0, 10.0, 16.0, 11.0, 12.0]).with_columns(volume=pl.Series(volume, dtype=pl.Float64))
        found = explosion(bars, rise=0.5, horizon_bars=2, dead_after_bars=3)
        return found.y[0], found.end[0], found.ret[0]

    assert labelled([1, 1, 1, 1, 1]) == (1, 2, pytest.approx(math.log(1.6)))
    assert labelled([1, 1, 0, 1, 1]) == (0, 3, pytest.approx(math.log(1.1)))  # nobody traded at 16
    assert labelled([1, 0, 0, 1, 1]) == (0, 4, pytest.approx(math.log(12 / 11)))  # in at 11, the first that traded


def test_a_print_that_no_neighbour_confirms_is_no_rise():
    bars = flat([10.0] * 6, [10.0, 10.0, 100.0, 10.0, 10.0, 10.0])
    assert explosion(bars, rise=0.5, horizon_bars=4, dead_after_bars=3).y[0] == 0


def test_an_exact_touch_counts_and_a_hair_less_does_not():
    for high, y in ((120.0, 1), (np.nextafter(120.0, 0), 0)):
        bars = flat([100.0, 100.0, 100.0], [100.0, 100.0, high])
        assert explosion(bars, rise=0.2, horizon_bars=2, dead_after_bars=5).y[0] == y


def test_at_the_datas_end_an_early_rise_is_not_kept_either():
    """Else every sample of the last H bars would be a winner."""
    bars = flat([100.0] * 4, [100.0, 150.0, 100.0, 100.0])
    assert explosion(bars, rise=0.2, horizon_bars=5, dead_after_bars=2).y.tolist() == [-1] * 4


def test_a_label_reads_nothing_before_its_entry_nor_after_its_end():
    bars = panel(1, gaps=False)
    labels = explosion(bars, rise=0.02, horizon_bars=6, dead_after_bars=5)
    t = 20
    outside = np.ones(bars.height, dtype=bool)
    outside[t + 1 : t + 7] = False
    for name in ("open", "high", "close"):
        values = np.where(outside, bars[name].to_numpy() * 1.5, bars[name].to_numpy())
        bars = bars.with_columns(pl.Series(name, values))
    again = explosion(bars, rise=0.02, horizon_bars=6, dead_after_bars=5)
    assert (again.y[t], again.end[t], again.ret[t]) == (labels.y[t], labels.end[t], labels.ret[t])
    assert labels.y[t] >= 0


def test_sides_a_candidate_is_long_or_none():
    bars = walk_bars(30)
    side = np.ones(30, dtype=np.int8)
    side[::2] = 0
    labels = Explosion(rise=0.01, horizon_bars=3).label(bars, side)
    assert (labels.y[::2] == -1).all()
    np.testing.assert_array_equal(labels.y[1::2], Explosion(rise=0.01, horizon_bars=3).label(bars).y[1::2])
    with pytest.raises(TradsysError, match="only a long earns"):
        Explosion().label(bars, -side)


@pytest.mark.parametrize(
    "wrong", [{"rise": 0.0}, {"rise": math.inf}, {"rise": math.nan}, {"horizon_bars": 0}, {"dead_after_bars": 0}]
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(TradsysError, match=f"explosion: {next(iter(wrong))}="):
        explosion(walk_bars(5), **{"rise": 0.1, "horizon_bars": 2, "dead_after_bars": 2, **wrong})


def test_no_bars_and_too_few_are_no_samples():
    assert len(Explosion().label(walk_bars(3).clear())) == 0
    assert (Explosion().label(walk_bars(3)).y == -1).all()


def test_it_is_a_labeller_whose_card_is_json():
    label = Explosion(rise=0.2, horizon_bars=20)
    assert isinstance(label, Labeller)
    assert label.card() == {
        "kind": "explosion", "rise": 0.2, "horizon_bars": 20, "atr_bars": 14, "dead_after_bars": 10,
        "classes": ["no explosion", "explosion"],
    }  # fmt: skip
