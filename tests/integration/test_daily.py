"""Daily runs on a small panel with a planted edge: published, idempotent, never silently wrong."""

import json
import os

import numpy as np
import polars as pl
import pytest

from tests.daily_lab import BEFORE, DAY, NAME, PANEL, SHRUNK, daily
from tests.integration.conftest import inside
from tradsys.core.errors import TradsysError
from tradsys.daily import _settings, work
from tradsys.market.calendars import session_date
from tradsys.ops.daily.day_data import DailyBars
from tradsys.ops.daily.lock import held
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.publishing import latest
from tradsys.ops.daily.run import STAGES
from tradsys.serving.bundle import Bundle


def test_a_session_becomes_seven_partitions_and_a_report(published):
    store = Partitions(published / NAME)
    assert all(store.dates(stage.name) == [BEFORE] for stage in STAGES)
    assert store.dates("training") == [BEFORE]
    assert latest(store) == BEFORE
    reported = json.loads((published / NAME / "report" / "latest" / "report.json").read_text())
    assert reported["date"] == str(BEFORE)
    assert {check["gate"] for check in reported["gates"]} == {
        "auc", "training_rows", "coverage", "stale_prices", "duplicated_rows", "drift", "disk_gb",
    }  # fmt: skip
    page = (published / NAME / "report" / "latest" / "report.html").read_text()
    assert "Survivors only" in page  # of data=us_daily, whatever bars stand in for it
    assert page.index('id="verdict"') < page.index('id="gates"') < page.index('id="plan"')
    assert "plotly" in page
    log = json.loads((published / NAME / "log.jsonl").read_text().splitlines()[0])
    assert log["event"] == "run"


def test_the_planted_edge_is_found_and_planned(published):
    store = Partitions(published / NAME)
    reported = store.document("report", BEFORE, "report")
    auc = {one["name"]: one["metrics"]["auc"]["value"] for one in reported["horizons"]}
    assert auc["1d"] > 0.53  # 0.4 sigma of drift across the ranks
    plan = store.frame("report", BEFORE, "plan")
    assert 0 < plan.height <= 5
    assert plan["rank"].to_list() == list(range(1, plan.height + 1))
    forecasts = store.frame("models", BEFORE)
    base = reported["plan"]["base_rates"][reported["plan"]["ranked_by"]]
    assert (plan[f"p_{reported['plan']['ranked_by']}"] > base).all()
    assert "MKT" not in forecasts["symbol"]
    row = plan.row(0, named=True)
    atr = forecasts.filter(pl.col("symbol") == row["symbol"])["atr"][0]
    assert row["stop"] == pytest.approx(row["close"] - 2 * atr)
    assert row["target"] == pytest.approx(row["close"] + 3 * atr)
    assert plan["weight"].sum() <= 1.0 + 1e-9


def test_features_of_one_session_are_the_full_tables_rows(published):
    with inside(published):
        settings, _ = _settings(SHRUNK)
        bars = DailyBars(settings.first).of(BEFORE).bars
    table = settings.first.features.table(bars)
    rows = np.flatnonzero((bars["time"] == bars["time"].max()).to_numpy())
    frame = Partitions(published / NAME).frame("features", BEFORE)
    assert frame["symbol"].to_list() == [table.symbols[k] for k in table.symbol[rows]]
    # a rolling sum begun elsewhere differs in its last bits; a window one bar too short differs in the second digit
    np.testing.assert_allclose(frame.select(table.names).to_numpy(), table.values[rows], rtol=2e-4, atol=1e-6)


def test_forecasts_of_one_session_are_those_of_the_bundle_on_all_bars(published):
    store = Partitions(published / NAME)
    with inside(published):
        settings, _ = _settings(SHRUNK)
        bars = DailyBars(settings.first).of(BEFORE)
    for name in ("1d", "5d"):
        bundle = Bundle.load(store.root / "bundles" / f"date={BEFORE}" / name)
        whole = bundle.predict(bars.bars, bars.close).filter(pl.col("symbol") != "MKT")
        said = store.frame("models", BEFORE).filter(pl.col("horizon") == name)
        assert said["symbol"].to_list() == whole["symbol"].to_list()
        np.testing.assert_allclose(said["score"], whole["score"], atol=2e-3)
        assert bundle.card["span"]["test"][0] > bundle.card["span"]["valid"][1]


def test_labels_of_a_session_are_the_outcomes_that_it_made_known(published):
    frame = Partitions(published / NAME).frame("labels", BEFORE)
    bars = PANEL.bars().filter(session_date() <= BEFORE).sort("symbol", "time")
    closes = {s: part for (s,), part in bars.partition_by("symbol", as_dict=True, maintain_order=True).items()}
    assert frame.height == 2 * len(closes)
    for row in frame.iter_rows(named=True):
        part, h = closes[row["symbol"]], int(row["horizon"][:-1])
        assert row["decided"] == part["time"][-1 - h]
        expected = np.log(part["close"][-1] / part["open"][-h])
        assert row["ret"] == pytest.approx(expected)
        assert row["y"] == (expected > 0)


def test_a_second_run_finds_all_done_and_says_so(lab, capsys):
    before = {p: p.stat().st_mtime_ns for p in (lab / NAME).rglob("*") if p.is_file() and p.name != "log.jsonl"}
    daily("run", f"date={BEFORE}")
    assert f"all stages of {BEFORE} are done; nothing to do" in capsys.readouterr().out
    after = {p: p.stat().st_mtime_ns for p in (lab / NAME).rglob("*") if p.is_file() and p.name != "log.jsonl"}
    assert {p: t for p, t in after.items() if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }


def test_a_report_that_was_never_run_names_the_dates_there_are(lab):
    with pytest.raises(TradsysError, match=rf"no report of {DAY}.*there are {BEFORE}.*run it first"):
        daily("report", f"date={DAY}")


def test_a_report_is_drawn_again_from_what_the_run_left(lab, capsys):
    page = lab / NAME / "report" / f"date={BEFORE}" / "report.html"
    before = page.read_text()
    page.unlink()
    daily("report", f"date={BEFORE}")
    assert page.read_text() == before
    assert "verdict" in capsys.readouterr().out


def test_the_second_run_is_refused_with_who_is_running(lab):
    with held(NAME), pytest.raises(TradsysError, match=rf"held by process {os.getpid()} on "):
        daily("run", f"date={DAY}")


def test_an_unknown_verb_names_the_verbs(lab):
    with pytest.raises(TradsysError.__mro__[1], match="'walk' is no verb; the verbs are run, report, status"):
        work(["walk"])


def test_an_experiment_without_a_signals_table_says_so(lab):
    with pytest.raises(TradsysError, match=r"foundry has no signals table.*\+experiment=panel"):
        daily("signals")
