import hashlib
import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.market.bars import (
    COLUMNS,
    bar_length,
    check_bar_minutes,
    check_bars,
    check_no_short_run,
    combine_digests,
    content_digest,
    joined_columns,
    mark_gaps,
    span,
    symbol_digests,
)


def frame(rows):
    """Rows (symbol, minutes since 2020, price) as flat bars."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "symbol": pl.Series([r[0] for r in rows], dtype=pl.String),
            "time": pl.Series([start + timedelta(minutes=r[1]) for r in rows], dtype=pl.Datetime("us", "UTC")),
            **{name: pl.Series([float(r[2]) for r in rows]) for name in ("open", "high", "low", "close")},
            "volume": pl.Series([1.0] * len(rows)),
        }
    )


def test_clean_bars_pass_through_unchanged(make_walk_bars):
    bars = make_walk_bars(50, ("AAA", "BBB")).with_columns(extra=pl.lit(1))
    assert check_bars(bars) is bars


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"close": 0.0, "low": 0.0}, "1 x price not positive: AAA 2020-01-01 04:00"),
        ({"high": 1.0}, "1 x high below open or close"),
        ({"low": 1e9}, "1 x low above open or close"),
        ({"volume": -1.0}, "1 x negative volume"),
        ({"close": float("nan")}, "1 x not finite"),
        ({"volume": None}, "1 x not finite"),
    ],
)
def test_each_bad_value_is_named_with_count_and_place(make_walk_bars, damage, says):
    bars = make_walk_bars(10)
    hit = pl.int_range(pl.len()) == 3
    bad = bars.with_columns(
        pl.when(hit).then(pl.lit(value, pl.Float64)).otherwise(pl.col(name)).alias(name)
        for name, value in damage.items()
    )
    with pytest.raises(DataError, match=says):
        check_bars(bad)


def test_one_error_lists_every_kind(make_walk_bars):
    bars = make_walk_bars(10)
    bad = pl.concat([bars, bars[[2]].with_columns(volume=pl.lit(-2.0)), bars[[1]].with_columns(high=pl.lit(1.0))])
    with pytest.raises(DataError) as caught:
        check_bars(bad)
    for kind in ("4 x duplicate", "2 x out of order", "1 x negative volume", "1 x high below open or close"):
        assert kind in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.drop("volume"),
        lambda b: b.with_columns(pl.col("time").dt.cast_time_unit("ms")),
        lambda b: b.with_columns(pl.col("time").dt.replace_time_zone(None)),
        lambda b: b.with_columns(pl.col("close").cast(pl.Float32)),
        lambda b: b.with_columns(pl.col("symbol").cast(pl.Categorical)),
    ],
)
def test_a_wrong_schema_is_refused(make_walk_bars, change):
    with pytest.raises(DataError, match="bars have symbol String, time Datetime"):
        check_bars(change(make_walk_bars(3)))


gapped = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(0, 60)), min_size=1, max_size=40, unique=True
).map(sorted)


@given(gapped, st.one_of(st.none(), st.integers(1, 30)))
@settings(max_examples=80, deadline=None)
def test_mark_gaps_agrees_with_a_loop(rows, minutes):
    bars = frame([(s, m, 1) for s, m in rows])
    max_gap = None if minutes is None else timedelta(minutes=minutes)
    expected, number = [0], 0
    for (s0, m0), (s1, m1) in pairwise(rows):
        if s0 != s1 or (minutes is not None and m1 - m0 > minutes):
            number += 1
        expected.append(number)
    marked = mark_gaps(bars, max_gap)
    assert marked["segment"].to_list() == expected
    assert marked.schema["segment"] == pl.UInt32
    assert marked.drop("segment").equals(bars)


def test_a_step_of_exactly_max_gap_is_no_gap():
    bars = frame([("A", 0, 1), ("A", 60, 1), ("A", 121, 1)])
    assert mark_gaps(bars, timedelta(hours=1))["segment"].to_list() == [0, 0, 1]
    with pytest.raises(DataError, match="must be positive"):
        mark_gaps(bars, timedelta(0))


def test_bar_length_is_the_most_common_step():
    assert bar_length(frame([("A", m, 1) for m in (0, 15, 30, 45, 200)])) == timedelta(minutes=15)
    assert bar_length(frame([("A", 0, 1), ("A", 10, 1), ("A", 30, 1)])) == timedelta(minutes=10)
    with pytest.raises(DataError, match="needs two of one symbol"):
        bar_length(frame([("A", 0, 1), ("B", 60, 1)]))


def test_symbols_of_different_bar_lengths_are_refused():
    rows = [("A", 15 * k, 1) for k in range(12)] + [("B", 60 * k, 1) for k in range(12)]
    with pytest.raises(DataError, match="symbols differ in bar length: A 0:15:00, B 1:00:00"):
        bar_length(frame(rows))


def test_span_is_first_and_last_close(make_walk_bars):
    bars = make_walk_bars(25)
    assert span(bars) == (datetime(2020, 1, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, 1, tzinfo=UTC))
    with pytest.raises(DataError, match="empty"):
        span(bars.clear())


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_digest_ignores_order_chunks_and_extra_columns(random):
    rng = np.random.default_rng(5)
    bars = frame([(s, m, p) for s in "AB" for m, p in zip(range(20), rng.uniform(1, 2, 20), strict=True)])
    digest = content_digest(bars)
    order, columns = list(range(bars.height)), list(COLUMNS)
    random.shuffle(order)
    random.shuffle(columns)
    shuffled = bars[order].select(columns)
    chunked = pl.concat([shuffled[:7], shuffled[7:]], rechunk=False).with_columns(segment=pl.lit(0))
    assert content_digest(chunked) == digest


def test_joined_columns_are_content_and_marks_are_not():
    bars = frame([("A", m, 1.5) for m in range(5)])
    joined = bars.with_columns(pe=pl.Series([None, 12.0, float("nan"), -0.0, 3.0]))
    assert joined_columns(joined.with_columns(segment=pl.lit(0, pl.UInt32), src=pl.lit("x"))) == ("pe",)
    assert check_bars(joined).equals(joined)
    digest = content_digest(joined)
    assert digest != content_digest(bars)
    assert content_digest(mark_gaps(joined, None)) == digest
    assert content_digest(joined.with_columns(pe=pl.Series([None, 12.0, None, 0.0, 3.0]))) == digest, "all say unknown"
    for other in ([None, 12.0, None, 0.0, 3.0000001], [1.0, 12.0, None, 0.0, 3.0]):
        assert content_digest(joined.with_columns(pe=pl.Series(other))) != digest
    assert content_digest(joined.rename({"pe": "pb"})) != digest, "the same numbers of another name are other data"


def test_a_joined_infinity_is_a_defect():
    bars = frame([("A", m, 1.5) for m in range(3)]).with_columns(pe=pl.Series([1.0, float("inf"), None]))
    with pytest.raises(DataError, match="1 x pe infinite: A 2020-01-01"):
        check_bars(bars)


@pytest.mark.parametrize("column", ["symbol", "time", "open", "high", "low", "close", "volume"])
def test_digest_feels_the_smallest_change_anywhere(column):
    bars = frame([("A", m, 1.5) for m in range(5)])
    change = {
        "symbol": pl.lit("B"),
        "time": pl.col("time") + timedelta(microseconds=1),
    }.get(column, pl.col(column) * (1 + 2.3e-16))
    hit = pl.int_range(pl.len()) == 4
    changed = bars.with_columns(pl.when(hit).then(change).otherwise(pl.col(column)).alias(column))
    assert not changed.equals(bars)
    assert content_digest(changed) != content_digest(bars)


def test_digest_survives_parquet_and_is_made_of_the_symbols(tmp_path):
    bars = frame([(s, m, 1.25) for s in "AB" for m in range(9)])
    bars.write_parquet(tmp_path / "x.parquet", compression="lz4", row_group_size=4)
    assert content_digest(pl.read_parquet(tmp_path / "x.parquet")) == content_digest(bars)
    one_by_one = {s: content for s in "BA" for content in symbol_digests(bars.filter(symbol=s)).values()}
    assert combine_digests(one_by_one) == content_digest(bars)


def test_digest_agrees_with_the_bytes_written_out_by_hand():
    """It is written into bundles and manifests, so it may not drift from release to release."""
    midnight = 1_577_836_800_000_000
    flat = [1.0, 1.0]
    content_a = struct.pack("<2q", midnight, midnight + 3_600_000_000) + 4 * struct.pack("<2d", 1.5, 2.5)
    content_b = struct.pack("<q", midnight) + 4 * struct.pack("<d", 3.5) + struct.pack("<d", 1.0)
    lines = [
        f"A\t{hashlib.sha256(content_a + struct.pack('<2d', *flat)).hexdigest()}\n",
        f"B\t{hashlib.sha256(content_b).hexdigest()}\n",
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert content_digest(frame([("A", 0, 1.5), ("A", 60, 2.5), ("B", 0, 3.5)])) == expected


def hourly(symbol, minutes):
    """Bars of one symbol whose steps are these minutes."""
    return frame([(symbol, at, 1.0) for at in np.cumsum([0, *minutes]).tolist()])


def test_the_bar_length_is_the_same_in_any_order_of_the_symbols():
    bars = pl.concat([hourly("AAA", [60] * 12), hourly("BBB", [60] * 9 + [120] * 6), hourly("CCC", [30])])
    assert bar_length(bars) == bar_length(bars.sort("time", "symbol")) == timedelta(hours=1)
    mixed = pl.concat([bars, hourly("DDD", [15] * 12)])
    for rows in (mixed, mixed.sort("time", "symbol")):
        with pytest.raises(DataError, match=r"AAA 1:00:00, DDD 0:15:00"):
            bar_length(rows)


def test_two_short_steps_in_a_row_count_within_one_symbol_only():
    apart = pl.concat([hourly("AAA", [60, 60, 30]), hourly("BBB", [30, 60, 60, 30, 60])])
    check_no_short_run(apart, 60, "here", "a rule")
    run = pl.concat([apart, hourly("CCC", [60, 30, 30])])
    for rows in (run, run.sort("time", "symbol")):
        with pytest.raises(
            DataError, match="CCC has bars shorter than 60 minutes, the first two in a row to 2020-01-01 02"
        ):
            check_no_short_run(rows, 60, "here", "a rule")


@pytest.mark.parametrize("by", [("symbol", "time"), ("time", "symbol")])
def test_a_wrong_length_is_seen_in_any_order_of_symbols_and_only_in_bars_enough(make_walk_bars, by):
    """Sorted by time, no two bars in a row are of one symbol; nine bars are too few to measure."""
    bars = make_walk_bars(10, ("AAA", "BBB")).sort(by)
    minutes = bar_length(bars) / timedelta(minutes=1)
    check_bar_minutes(bars, minutes, "data", "the rule")
    with pytest.raises(DataError, match=r"data: the bars are of .* minutes, not of 7; the rule"):
        check_bar_minutes(bars, 7, "data", "the rule")
    check_bar_minutes(bars.head(0), 7, "data", "the rule")
    check_bar_minutes(make_walk_bars(9, ("AAA", "BBB")).sort(by), 7, "data", "the rule")
