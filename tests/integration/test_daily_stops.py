"""Daily runs that publish nothing: stopped by their gates, or refused with one clear line."""

from datetime import timedelta

import polars as pl
import pytest

from tests.daily_lab import BEFORE, DAY, NAME, PANEL, SHRUNK, daily, stored
from tradsys.config.compose import run_command
from tradsys.core.errors import DataError, GateError, TradsysError
from tradsys.daily import work
from tradsys.market.bars import PRICES
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.publishing import latest, old


def test_a_stopped_day_publishes_nothing_and_yesterdays_report_says_that_it_is_old(lab, capsys):
    page = lab / NAME / "report" / f"date={BEFORE}" / "report.html"
    assert "This report is outdated" not in page.read_text()
    with pytest.raises(GateError, match=rf"{DAY} is stopped by its gates.*nothing is published.*report of {BEFORE}"):
        daily("run", f"date={DAY}", "gates.rules.coverage.stop_below=1.01", "gates.rules.coverage.warn_below=1.01")
    store = Partitions(lab / NAME)
    assert latest(store) == BEFORE
    assert not store.folder("report", DAY).exists()
    assert old(store, BEFORE)["failed"] == str(DAY)
    assert "This report is outdated" in page.read_text()
    assert str(DAY) in page.read_text()
    assert "**This report is outdated.**" in page.with_suffix(".md").read_text()
    capsys.readouterr()
    daily("status")
    reported = " ".join(capsys.readouterr().out.split())  # wrapped at the width of the screen
    assert f"latest {BEFORE}" in reported
    assert f"the report of {BEFORE} is the newest, but {DAY} could not be published" in reported
    assert "stopped" in reported
    daily("run", f"date={DAY}")  # the bound is the configured one again
    assert latest(store) == DAY
    assert old(store, BEFORE) is None
    assert "This report is outdated" not in page.read_text()


def test_a_command_ends_a_stopped_day_with_exit_code_2_and_one_line(lab, capsys):
    with pytest.raises(SystemExit) as left:
        run_command("daily", work, ["run", *SHRUNK, f"date={DAY}", "gates.rules.disk_gb.stop_below=1e9",
                                 "gates.rules.disk_gb.warn_below=1e9"])  # fmt: skip
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "free disk" in lines[0]


def test_a_price_file_older_than_the_calendar_is_one_clear_error(lab):
    later = DAY + timedelta(days=1)
    while later.weekday() >= 5:
        later += timedelta(days=1)
    with pytest.raises(GateError, match=rf"prices end {DAY}, 1 session before {later}.*fetch newer data, or give date"):
        daily("run", f"date={later}")
    assert old(Partitions(lab / NAME), BEFORE)["failed"] == str(later)


def test_without_a_date_the_last_closed_session_is_asked_for(lab):
    with pytest.raises(GateError, match=rf"prices end {DAY}, \d+ sessions before 20"):
        daily("run")


def test_a_date_that_is_no_session_names_its_neighbours(lab):
    saturday = next(d for d in (DAY - timedelta(days=k) for k in range(8)) if d.weekday() == 5)
    with pytest.raises(DataError, match=rf"{saturday} is no session of XNYS; the one before is"):
        daily("run", f"date={saturday}")


def test_a_vanished_symbol_is_a_warning_and_a_split_too(lab):
    bars = PANEL.bars()
    cut = bars["time"].unique().sort()[-4]
    gone = (pl.col("symbol") == "P0003") & (pl.col("time") > cut)
    split = (pl.col("symbol") == "P0007") & (pl.col("time") > cut)
    prices = ("open", "high", "low", "close")
    stored(
        lab, bars.filter(~gone).with_columns(pl.when(split).then(pl.col(p) / 4).otherwise(pl.col(p)) for p in prices)
    )
    daily("run", f"date={DAY}")
    store = Partitions(lab / NAME)
    reported = store.document("report", DAY, "report")
    kinds = {found["kind"]: found for found in reported["quality"]}
    assert "P0003" in kinds["vanished_symbol"]["examples"][0]
    assert "P0007" in kinds["split_like_jump"]["examples"][0]
    assert reported["coverage"]["absent"] == ["P0003"]
    assert "P0003" not in store.frame("models", DAY)["symbol"]
    page = (store.folder("report", DAY) / "report.html").read_text()
    assert "vanished_symbol" in page
    assert "Without a price: P0003" in page


def test_many_names_without_a_price_stop_the_day(lab):
    bars = PANEL.bars()
    names = [f"P{k:04d}" for k in range(8)]
    stored(lab, bars.filter(~(pl.col("symbol").is_in(names) & (pl.col("time") == bars["time"].max()))))
    with pytest.raises(GateError, match=r"members with every feature 66.7%, stops below 80.0% \(16 of 24\)"):
        daily("run", f"date={DAY}")


def test_names_whose_close_stood_still_for_five_sessions_stop_the_day(lab):
    bars = PANEL.bars()
    times = bars["time"].unique().sort()
    lasting = pl.when(pl.col("symbol") < "P0003").then(pl.lit(times[-5])).otherwise(pl.lit(times[-4]))
    hit = (pl.col("symbol") < "P0005") & (pl.col("time") >= lasting)  # two names stand still for four sessions alone
    stored(lab, bars.with_columns(pl.when(hit).then(100.0).otherwise(pl.col(n)).alias(n) for n in PRICES))
    with pytest.raises(GateError, match=r"12.5%, stops above 10.0% \(0 without a price, 3 frozen for 5 sessions\)"):
        daily("run", f"date={DAY}")


def test_repeated_rows_stop_the_day(lab):
    bars = PANEL.bars()
    numbers = ("open", "high", "low", "close", "volume")
    last = bars["time"].max()
    hit = (pl.col("time") == last) & (pl.col("symbol") < "P0005")
    before = {n: pl.col(n).shift(1).over("symbol") for n in numbers}
    again = bars.with_columns(pl.when(hit).then(before[n]).otherwise(pl.col(n)) for n in numbers)
    stored(lab, again)
    with pytest.raises(GateError, match=r"rows that repeat the session before 20.8%, stops above 5.0% \(5 of 24\)"):
        daily("run", f"date={DAY}")


def test_prices_that_are_not_positive_are_refused_before_they_are_stored(lab):
    bars = PANEL.bars().with_columns(low=pl.when(pl.int_range(pl.len()) == 900).then(-1.0).otherwise(pl.col("low")))
    with pytest.raises(DataError, match="1 x price not positive"):
        stored(lab, bars)


def test_a_horizon_longer_than_the_history_is_one_clear_error(lab):
    with pytest.raises(
        TradsysError, match=r"a horizon of 700 sessions after 263 of warm-up is longer than the history of 720"
    ):
        daily("run", f"date={DAY}", "horizons=[700]")
    assert latest(Partitions(lab / NAME)) == BEFORE


def test_one_class_only_is_one_clear_error(lab):
    k = pl.int_range(pl.len()).over("symbol")
    rising = PANEL.bars().with_columns(
        open=100 + k * 1.0, high=101.5 + k, low=99.5 + k, close=101.0 + k, volume=pl.lit(1000.0)
    )
    stored(lab, rising)
    with pytest.raises(TradsysError, match="class"):
        daily("run", f"date={DAY}")
    assert old(Partitions(lab / NAME), BEFORE)["failed"] == str(DAY)
