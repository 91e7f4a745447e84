"""The same random bars in every form come back to the bit, and never earlier than their vendor knew them."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vendor_forms.forms import FORMS, VALUES, keyed, random_bars, written
from tradsys.core.errors import DataError
from tradsys.market.sources.files import read

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


@given(
    form=st.sampled_from(
        [f for f in FORMS if f.name.lower().endswith((".csv", ".txt", ".tsv")) and "utf16" not in f.name]
    ),
    seed=st.integers(0, 99),
    change=st.sampled_from(["reverse", "shuffle", "repeat", "drop rows", "cut bytes"]),
    random=st.randoms(use_true_random=False),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_file_makes_a_bar_early_or_a_row_vanish(tmp_path_factory, form, seed, change, random):
    bars = random_bars(30, seed, start=datetime(2024, 1, 3, tzinfo=UTC))
    data = form.write(bars)
    lines = data.split(b"\n")
    first = next(k for k, line in enumerate(lines) if any(part in line for part in (b"2024", b"1704", b"4529")))
    head, rows = lines[:first], lines[first:-1]
    if change == "reverse":
        rows = rows[::-1]
    elif change == "shuffle":
        random.shuffle(rows)
    elif change == "repeat":
        rows = [*rows, random.choice(rows)]
    elif change == "drop rows":
        rows = [row for k, row in enumerate(rows) if k < 12 or random.random() > 0.2]
    data = b"\n".join([*head, *rows]) + b"\n"
    if change == "cut bytes":
        data = data[: len(data) - random.randrange(1, 60)]
    path = tmp_path_factory.mktemp("form") / form.name
    path.write_bytes(data)
    try:
        result = read(path, form.layout, **keyed(form.options))
    except DataError as error:
        if change == "reverse":
            raise AssertionError from error
        return
    ends = {row["open"]: row["time"] + timedelta(hours=1) for row in bars.iter_rows(named=True)}
    assert result.bars.height == len([row for row in rows if row.strip()]) or change == "cut bytes"
    for row in result.bars.iter_rows(named=True):
        if row["open"] in ends:
            assert row["time"] >= ends[row["open"]]
    if change == "cut bytes":
        kinds = {one.kind for one in result.repairs}
        n_whole = data.count(b"\n") - len(head)
        assert result.bars.height >= n_whole or "no_final_line_break" in kinds


def test_the_clock_of_the_machine_does_not_matter(tmp_path):
    bars = random_bars(30, start=datetime(2030, 1, 1, tzinfo=UTC))
    path = written(tmp_path, FORMS[0], bars)
    with pytest.raises(DataError, match="30 x future_time"):
        read(path, "plain", now=datetime(2029, 1, 1, tzinfo=UTC))
    assert read(path, "plain", now=datetime(2031, 1, 1, tzinfo=UTC)).bars.height == 30
