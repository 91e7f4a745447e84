"""Every kind of defect, planted alone in clean bars, is found once, and its repair accepts the file."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.sources.files import read
from tradsys.market.sources.layouts import Layout
from tradsys.market.sources.quality import RULES
from tradsys.market.sources.repairs import REMEDIES

FILLED = Layout("filled", fills_outages=True)
CHECKED = Layout("checked", time=("time",), check="date", stamp="close")
HOLIDAYS = [date(2020, *d) for d in ((1, 20), (2, 17), (4, 10), (5, 25), (7, 3), (9, 7))]
PRICES = ["open", "high", "low", "close"]


def hour(bars):
    return bars


def daily(bars):
    """Weekdays only, stamped at the date's midnight."""
    day = bars["time"][0].replace(hour=0) + timedelta(days=5)  # 2020-01-06, a Monday
    days = [d for d in (day + timedelta(days=k) for k in range(2 * bars.height)) if d.weekday() < 5][: bars.height]
    return bars.with_columns(time=pl.Series(days, dtype=bars.schema["time"]))


def put(bars, row, **values):
    hit = pl.int_range(pl.len()) == row
    return bars.with_columns(
        pl.when(hit).then(pl.lit(value)).otherwise(pl.col(name)).alias(name) for name, value in values.items()
    )


def scale(bars, first, last, factor, names=PRICES):
    inside = pl.int_range(pl.len()).is_between(first, last)
    return bars.with_columns(pl.when(inside).then(pl.col(n) * factor).otherwise(pl.col(n)).alias(n) for n in names)


def flat(bars, rows):
    close = bars["close"][rows[0] - 1]
    for row in rows:
        bars = put(bars, row, **dict.fromkeys(PRICES, close), volume=0.0)
    return put(
        bars,
        rows[-1] + 1,
        open=close,
        high=max(close, bars["high"][rows[-1] + 1]),
        low=min(close, bars["low"][rows[-1] + 1]),
    )


def shift_time(bars, first, **delta):
    late = pl.int_range(pl.len()) >= first
    return bars.with_columns(time=pl.when(late).then(pl.col("time") + timedelta(**delta)).otherwise("time"))


def text(bars, row, column, value):
    return put(bars.with_columns(pl.col(column).cast(pl.String)), row, **{column: value})


def redated(bars):
    """The last ten sessions a year late and on consecutive days, weekends too."""
    bars = daily(bars)
    start = bars["time"][-11] + timedelta(days=365)
    late = [start + timedelta(days=k) for k in range(10)]
    return bars.with_columns(time=pl.concat([bars["time"][:-10], pl.Series(late, dtype=bars.schema["time"])]))


def listing_tick(bars):
    return put(bars, 0, open=400.0, high=400.0, low=bars["close"][0] * 0.999)


# kind of defect -> (bars with the defect, count, layout, {repair that accepts: rows left})
PLANTED = {
    "unreadable_value": (lambda b: text(b, 4, "close", "oops"), 1, "plain", {"drop_unreadable_rows": 199}),
    "early_time": (
        lambda b: put(b, 0, time=datetime(1969, 12, 31, tzinfo=UTC)),
        1,
        "plain",
        {"accept_early_times": 200, "drop_early_times": 199},
    ),
    "future_time": (
        lambda b: put(b, 199, time=datetime(2202, 1, 2, tzinfo=UTC)),
        1,
        "plain",
        {"drop_future_times": 199},
    ),
    "live_row": (
        lambda b: put(b, 199, time=b["time"][-2] + timedelta(minutes=31, seconds=7)),
        1,
        "plain",
        {"drop_live_rows": 199},
    ),
    "unclosed_bar": (
        lambda b: b.with_columns(time=pl.col("time") + (datetime.now(UTC) - b["time"][-1])),
        1,
        "plain",
        {"drop_unclosed": 199},
    ),
    "time_of_day_off_session": (
        lambda b: (
            daily(b)
            .filter(~pl.col("time").dt.date().is_in(HOLIDAYS))
            .with_columns(pl.col("time") + timedelta(hours=22, minutes=30))
        ),
        194,
        "plain",
        {},
    ),
    "empty_row": (lambda b: put(b, 4, **dict.fromkeys(PRICES)), 1, "plain", {"drop_empty_rows": 199}),
    "missing_price": (lambda b: put(b, 4, close=None), 1, "plain", {"drop_incomplete_rows": 199}),
    "price_not_positive": (lambda b: put(b, 4, low=-0.5), 1, "plain", {"drop_nonpositive_rows": 199}),
    "time_columns_disagree": (
        lambda b: put(b.with_columns(date="time"), 199, date=b["time"][-1] + timedelta(hours=4)),
        1,
        CHECKED,
        {
            "trust_later_time": 200,
            "trust_time_column": 200,
            "trust_check_column": 200,
            "drop_disagreeing_times": 199,
        },
    ),
    "identical_duplicate": (lambda b: pl.concat([b, b[[7]]]), 1, "plain", {"drop_identical_duplicates": 200}),
    "conflicting_duplicate": (
        lambda b: pl.concat([b, b[[7]].with_columns(volume=pl.lit(5.0))]),
        1,
        "plain",
        {"keep_first_duplicate": 200, "keep_last_duplicate": 200},
    ),
    "no_high_low": (lambda b: b.drop("high", "low"), 200, "plain", {"fill_high_low_from_close": 200}),
    "no_volume": (lambda b: b.drop("volume"), 200, "plain", {"fill_volume_zero": 200}),
    "negative_volume": (lambda b: put(b, 4, volume=-1.0), 1, "plain", {"drop_negative_volume": 199}),
    "bad_tick": (listing_tick, 1, "plain", {"drop_bad_ticks": 199, "accept_bad_ticks": 200}),
    "high_low_breached": (
        lambda b: put(b, 4, high=b["close"][4] * 0.9, low=b["close"][4] * 0.8),
        1,
        "plain",
        {"clip_high_low": 200},
    ),
    "invented_flat_bar": (
        lambda b: flat(b, [50, 51, 52]),
        3,
        FILLED,
        {"drop_invented_flat_bars": 197, "accept_flat_bars": 200},
    ),
    "redated_block": (redated, 10, "plain", {"drop_redated_blocks": 190}),
    "weekend_session": (
        lambda b: put(daily(b), 199, time=daily(b)["time"][-1] + timedelta(days=1)),
        1,
        "plain",
        {"drop_weekend_sessions": 199, "accept_weekend_sessions": 200},
    ),
    # holidays of New York among 200 weekdays from 2020-01-06 on: King, Presidents, Good Friday, Memorial, July 3, Labor
    "not_a_session": (daily, 6, "plain", {"drop_non_sessions": 194}),
    "overlapping_bar": (
        lambda b: put(b, 150, time=b["time"][149] + timedelta(minutes=20)),
        1,
        "plain",
        {"drop_overlapping_bars": 199},
    ),
    "ticker_reused": (lambda b: scale(b, 120, 199, 5000), 1, "plain", {"split_reused_ticker": 200}),
    "suspicious_jump": (
        lambda b: scale(b, 120, 199, 0.5),
        1,
        "plain",
        {"split_at_jumps": 200, "accept_jumps": 200},
    ),
    "implausible_level": (
        lambda b: scale(b, 0, 199, 10).with_columns(symbol=pl.lit("DXY")),
        200,
        "plain",
        {"accept_levels": 200},
    ),
}
OPTIONS = {kind: {"calendar": "XNYS"} for kind in ("not_a_session", "time_of_day_off_session")}


def written(tmp_path, bars, damage):
    path = tmp_path / "AAA.csv"
    damage(bars).write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    return path


def test_every_rule_and_every_repair_is_tried_here():
    assert set(PLANTED) == {rule.kind for rule in RULES}
    tried = {repair for *_, repairs in PLANTED.values() for repair in repairs}
    assert tried == set(REMEDIES) - {"adjust_for_dividends", "drop_last_bar"}
    assert {r for rule in RULES for r in rule.repairs} <= set(REMEDIES)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_defect_is_refused_with_its_count_and_repairs(tmp_path, make_walk_bars, kind):
    damage, count, layout, repairs = PLANTED[kind]
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, make_walk_bars(200), damage), layout, **OPTIONS.get(kind, {}))
    lines = {line.split(" x ")[1].split(":")[0]: line for line in str(caught.value).splitlines() if " x " in line}
    allowed = {kind} | ({"weekend_session"} if kind == "redated_block" else set())
    assert set(lines) <= allowed, "nothing else is found"
    assert lines[kind].strip().startswith(f"{count} x ")
    for repair in repairs:
        assert repair in lines[kind]


@pytest.mark.parametrize(("kind", "repair"), [(k, r) for k, (*_, repairs) in PLANTED.items() for r in repairs])
def test_the_named_repair_accepts_it_and_is_reported(tmp_path, make_walk_bars, kind, repair):
    damage, count, layout, repairs = PLANTED[kind]
    result = read(written(tmp_path, make_walk_bars(200), damage), layout, repair=[repair], **OPTIONS.get(kind, {}))
    assert result.bars.height == repairs[repair]
    reported = {one.kind: one for one in result.repairs}[repair]
    assert reported.count == count
    assert reported.examples


def test_clean_bars_ask_for_nothing(tmp_path, make_walk_bars):
    result = read(written(tmp_path, make_walk_bars(200), lambda b: b), "bars")
    assert result.repairs == ()
    assert result.remarks == ()


def test_several_defects_come_in_one_error(tmp_path, make_walk_bars):
    def damage(bars):
        bars = put(scale(bars, 120, 199, 0.5), 30, volume=-1.0)
        return pl.concat([bars, bars[[9]]])

    with pytest.raises(DataError, match="3 kinds of defect in 201 rows") as caught:
        read(written(tmp_path, make_walk_bars(200), damage), "plain")
    for kind in ("identical_duplicate", "negative_volume", "suspicious_jump"):
        assert f"1 x {kind}" in str(caught.value)


def test_an_unknown_repair_is_refused_with_the_list(tmp_path, make_walk_bars):
    with pytest.raises(DataError, match=r"no repair named \['fix_all'\]; the repairs are drop_unreadable_rows"):
        read(written(tmp_path, make_walk_bars(9), lambda b: b), "plain", repair=["fix_all"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: scale(b, 80, 80, 3.0),  # a whole bar off, then back
        lambda b: put(b, 80, close=b["close"][80] * 3, high=b["close"][80] * 3),  # the close alone
        lambda b: put(b, 80, open=b["open"][80] / 3, low=b["open"][80] / 3),  # the open alone
    ],
)
def test_a_print_that_nothing_around_supports_is_a_bad_tick_not_a_jump(tmp_path, make_walk_bars, damage):
    path = written(tmp_path, make_walk_bars(200), damage)
    with pytest.raises(DataError, match=r"1 kind of defect .*\n  1 x bad_tick: AAA 2020-01-04 09:00"):
        read(path, "plain")
    kept = read(path, "plain", repair=["drop_bad_ticks"]).bars
    assert kept.height == 199
    assert kept["close"].max() < 2 * kept["close"].median()


def test_a_collapse_that_trades_all_the_way_down_is_no_defect(tmp_path, make_walk_bars):
    def collapse(bars):
        bars = scale(bars, 101, 199, 1e-3)
        first = bars["close"][99]
        return put(bars, 100, open=first, high=first * 1.01, low=first * 9e-4, close=bars["open"][101])

    assert read(written(tmp_path, make_walk_bars(200), collapse), "plain").bars.height == 200


def test_splitting_numbers_each_part_and_keeps_other_symbols(tmp_path, make_walk_bars):
    bars = make_walk_bars(100, ("AAA", "BBB"))
    one = scale(scale(bars.filter(symbol="AAA"), 40, 99, 0.4), 70, 99, 0.4)
    both = pl.concat([one, bars.filter(symbol="BBB")])
    result = read(written(tmp_path, both, lambda b: b), "plain", repair=["split_at_jumps"])
    assert dict(result.bars.group_by("symbol").len().iter_rows()) == {
        "AAA": 40,
        "AAA.2": 30,
        "AAA.3": 30,
        "BBB": 100,
    }


def test_short_flat_runs_are_a_remark_where_the_vendor_does_not_invent(tmp_path, make_walk_bars):
    bars = make_walk_bars(200)
    quiet = read(written(tmp_path, bars, lambda b: flat(b, [50, 51, 52])), "plain")
    assert {r.kind: r.count for r in quiet.remarks} == {"flat_bar_without_volume": 3}
    with pytest.raises(DataError, match="24 x invented_flat_bar"):
        read(written(tmp_path, bars, lambda b: flat(b, list(range(50, 74)))), "plain")


def test_holes_and_wicks_are_reported_and_left_alone(tmp_path, make_walk_bars):
    damage = lambda b: put(shift_time(b, 150, hours=5), 20, low=b["low"][20] / 10)  # noqa: E731
    result = read(written(tmp_path, make_walk_bars(2000), damage), "plain")
    assert {r.kind: r.count for r in result.remarks} == {"hole": 1, "extreme_wick": 1}
    assert result.bars.height == 2000


def test_an_unfinished_last_bar_is_dropped_only_when_asked(tmp_path, make_walk_bars):
    bars = make_walk_bars(20, ("AAA", "BBB"))
    result = read(written(tmp_path, bars, lambda b: b), "bars", repair=["drop_last_bar"])
    assert {one.kind: one.count for one in result.repairs} == {"drop_last_bar": 2}
    assert result.bars.equals(bars.filter(pl.col("time") < bars["time"].max()))
