"""The same random bars in every form come back to the bit, and never earlier than their vendor knew them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vendor_forms.forms import FORMS, OPENS, VALUES, csv, keyed, random_bars, texts, written
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read
from tradsys.market.sources.sniff import FormKeys

NOW = datetime(2026, 6, 1, tzinfo=UTC)
IDS = [form.name for form in FORMS]


def closed(bars, length=timedelta(hours=1)):
    return bars.with_columns(pl.col("time") + length)


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_bars_come_back_to_the_bit(tmp_path, form):
    bars = random_bars(400, seed=3)
    got = read(written(tmp_path, form, bars), form.layout, **keyed(form.options)).bars
    expected = closed(bars)
    assert got["time"].to_list() == expected["time"].to_list()
    for name in VALUES:
        assert got[name].to_list() == expected[name].to_list(), name


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_no_stored_bar_is_stamped_before_its_end(tmp_path, form):
    """The contract, at four hours: one hour would be the end of no bar."""
    bars = random_bars(60, seed=5, minutes=240)
    got = read(written(tmp_path, form, bars), form.layout, **keyed(form.options)).bars
    by_close = dict(zip(bars["close"].to_list(), bars["time"].to_list(), strict=True))
    assert all(row["time"] >= by_close[row["close"]] + timedelta(hours=4) for row in got.iter_rows(named=True))


CHANGES = ("reverse", "shuffle", "repeat", "drop rows", "cut bytes")
OPEN_TEXT = (".csv", ".txt", ".tsv")
cases = given(
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 99),
    change=st.sampled_from(CHANGES),
    random=st.randoms(use_true_random=False),
)


def changed(bars, change, random):
    """The rows in another order, one of them twice, or some of them missing."""
    places = list(range(bars.height))
    if change == "reverse":
        places = places[::-1]
    elif change == "shuffle":
        random.shuffle(places)
    elif change == "repeat":
        places.append(random.choice(places))
    elif change == "drop rows":
        places = [k for k in places if k < 12 or random.random() > 0.2]
    return bars[places]


def check_nothing_early_nothing_lost(reader, folder, form, seed, change, random):
    """No stored bar is stamped before its end, and every row is a bar, or is refused or named."""
    bars = random_bars(30, seed, start=datetime(2024, 1, 3, tzinfo=UTC))
    rows = changed(bars, change, random)
    data = form.write(rows)
    whole = rows.height
    if change == "cut bytes":
        data = data[: len(data) - random.randrange(1, 60)]
        plain = form.name.lower().endswith(OPEN_TEXT) and "utf16" not in form.name
        lines = form.write(rows).split(b"\n")
        whole = rows.height - (len(lines) - len(data.split(b"\n"))) if plain else rows.height
    path = folder / form.name
    path.write_bytes(data)
    try:
        result = reader(path, form.layout, **keyed(form.options))
    except DataError:
        if change == "reverse":
            raise
        return
    ends = {row["open"]: row["time"] + timedelta(hours=1) for row in bars.iter_rows(named=True)}
    for row in result.bars.iter_rows(named=True):
        assert change == "cut bytes" or row["open"] in ends
        assert row["open"] not in ends or row["time"] >= ends[row["open"]]
    named = {one.kind for one in result.repairs}
    if result.bars.height < rows.height:
        assert result.bars.height >= whole
        assert "no_final_line_break" in named


@cases
@settings(max_examples=60, deadline=None)
def test_no_change_of_a_file_makes_a_bar_early_or_a_row_vanish(tmp_path_factory, form, seed, change, random):
    check_nothing_early_nothing_lost(read, tmp_path_factory.mktemp("form"), form, seed, change, random)


def hasty(path, layout, **options):
    """Takes the stamp of a bar's open for the moment at which the bar was known."""
    found = read(path, layout, **options)
    return replace(found, bars=found.bars.with_columns(pl.col("time") - timedelta(hours=1)))


def careless(path, layout, **options):
    """Loses the last row without a word."""
    found = read(path, layout, **options)
    return replace(found, bars=found.bars.head(-1))


@pytest.mark.parametrize("reader", [hasty, careless])
def test_a_wrong_reader_fails_the_property(tmp_path, reader):
    """Negative control: the property finds both faults in every order of the rows."""
    for change in ("reverse", "drop rows"):
        with pytest.raises(AssertionError):
            check_nothing_early_nothing_lost(reader, tmp_path, FORMS[0], 1, change, Random(1))


@given(
    zone=st.sampled_from(["America/New_York", "Asia/Tokyo", "Europe/Berlin", "Australia/Sydney"]),
    day=st.integers(0, 300),
)
@settings(max_examples=15, deadline=None)
def test_no_market_that_closes_is_known_early_without_a_zone(tmp_path_factory, zone, day):
    """Six hours a day on the clock of any exchange, in either half of the year: asked for, and right once given."""
    local = ZoneInfo(zone)
    first = datetime(2024, 1, 3, 10, tzinfo=local) + timedelta(days=day)
    opens = [t for d in range(14) for h in range(6) if (t := first + timedelta(days=d, hours=h)).weekday() < 5]
    bars = random_bars(len(opens), day).with_columns(time=pl.Series([t.astimezone(UTC) for t in opens]))
    stamps = iter(opens)
    path = tmp_path_factory.mktemp("closing") / "ABC.csv"
    path.write_bytes(csv(texts(bars, lambda _: next(stamps).strftime("%Y-%m-%d %H:%M")), "Time" + OPENS))
    with pytest.raises(DataError, match="give zone="):
        read(path, "plain", now=NOW)
    got = read(path, "plain", now=NOW, keys=FormKeys(zone=zone)).bars
    assert got["time"].to_list() == [t.astimezone(UTC) + timedelta(hours=1) for t in opens]


def test_the_clock_of_the_machine_does_not_matter(tmp_path):
    bars = random_bars(30, start=datetime(2030, 1, 1, tzinfo=UTC))
    path = written(tmp_path, FORMS[0], bars)
    with pytest.raises(DataError, match="30 x future_time"):
        read(path, "plain", now=datetime(2029, 1, 1, tzinfo=UTC))
    assert read(path, "plain", now=datetime(2031, 1, 1, tzinfo=UTC)).bars.height == 30
