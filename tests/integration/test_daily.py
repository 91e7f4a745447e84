"""Daily runs on a small panel with a planted edge: published, idempotent, resumed, stopped, never silently wrong."""

import json
import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.forks import run
from tests.integration.conftest import inside
from tradsys.config.compose import run_command
from tradsys.core.errors import DataError, GateError, TradsysError
from tradsys.daily import _settings, work
from tradsys.market.bars import content_digest
from tradsys.market.calendars import session_date
from tradsys.market.store import BarStore
from tradsys.market.synthetic_panel import SyntheticPanel
from tradsys.ops.daily.day_data import DailyBars
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import held
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.publishing import latest, old
from tradsys.ops.daily.run import STAGES
from tradsys.serving.bundle import Bundle

PANEL = SyntheticPanel(n_symbols=24, n_sessions=720, edge=0.4, deaths=0.0, late=0.0, seed=3)
SHRUNK = [
    "data=us_daily",
    "data.market_symbol=MKT",
    "data.source.start=null",
    "data.source.end=null",
    "evaluation.n_draws=20",
    "model.members.lightgbm.n_estimators=15",
    "split.valid_bars=60",
    "split.test_bars=120",
    "horizons=[1,5]",
    "gates.rules.training_rows.stop_below=500",
    "gates.rules.auc.stop_below=0.5",
    "retrain_every=3",
    "plan.n=5",
    "plan.rank_by=1d",
]
NAME = Path("runs/daily/foundry")
SESSIONS = sorted(PANEL.bars().select(session_date().unique()).to_series().to_list())
DAY, BEFORE, EARLIER = SESSIONS[-1], SESSIONS[-2], SESSIONS[-3]


def stored(folder: Path, bars: pl.DataFrame) -> None:
    shutil.rmtree(folder / "data" / "us_daily", ignore_errors=True)
    BarStore(folder / "data").write("us_daily", bars, {"source": "test", "bar_minutes": 1440})


def daily(verb: str, *overrides: str) -> None:
    work([verb, *SHRUNK, *overrides])


def events(folder: Path, **wanted) -> list[dict]:
    return RunLog(folder / NAME).lines(**wanted)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A lab with one published session, the last but one."""
    folder = tmp_path_factory.mktemp("daily")
    stored(folder, PANEL.bars())
    with inside(folder):
        daily("run", f"date={BEFORE}")
    return folder


@pytest.fixture
def lab(published, tmp_path):
    """A copy of that lab, to be spoilt."""
    folder = tmp_path / "lab"
    shutil.copytree(published, folder, symlinks=True)
    with inside(folder):
        yield folder


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


def test_another_session_keeps_the_champion_and_a_back_fill_challenges_it(lab, capsys):
    daily("run", f"date={DAY}")
    store = Partitions(lab / NAME)
    assert store.dates("training") == [BEFORE]
    assert latest(store) == DAY
    reported = store.document("models", DAY, "champions")
    assert {one["trained"] for one in reported.values()} == {str(BEFORE)}
    live = store.document("report", DAY, "report")["live"]
    assert live["1d"]["sessions"] == 1  # what was forecast yesterday is known today
    assert live["1d"]["n"] == 24


def test_a_back_fill_runs_every_session_and_challenges_the_champion(lab, capsys):
    first = SESSIONS[-5]
    daily("run", f"date={first}", f"until={DAY}")
    store = Partitions(lab / NAME)
    assert store.dates("report") == SESSIONS[-5:]
    assert latest(store) == DAY
    # the past was fitted on the past: BEFORE was published already and stays; three sessions on comes a challenge
    assert store.dates("training") == [first, BEFORE]
    trained = {day: store.document("models", day, "champions")["1d"]["trained"] for day in store.dates("models")}
    assert trained[SESSIONS[-4]] == trained[SESSIONS[-3]] == str(first)
    daily("run", f"date={first}", f"until={DAY}")
    assert f"all stages of {first} to {DAY} (5 sessions) are done; nothing to do" in capsys.readouterr().out


def test_a_challenger_is_judged_and_reported(lab):
    shutil.rmtree(lab / NAME)
    first = SESSIONS[-4]
    daily("run", f"date={first}", f"until={DAY}")
    store = Partitions(lab / NAME)
    assert store.dates("training") == [first, DAY]
    reported = store.document("models", DAY, "champions")["1d"]
    assert reported["challenged"] == str(DAY)
    assert reported["promotion"]["n_samples"] > 0
    assert reported["trained"] == str(DAY if reported["promotion"]["promoted"] else first)


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("plan.n=3", ["report"]),
        ("gates.rules.drift.warn_above=0.8", ["gates", "report"]),
        ("recent_sessions=30", ["features", "models", "gates", "report"]),
        ("model.members.logistic.C=1.0", ["models", "gates", "report"]),
    ],
)
def test_a_changed_config_redoes_what_depends_on_it_and_says_so(lab, override, redone):
    n = len(events(lab))
    daily("run", f"date={BEFORE}", override)
    begun = [line for line in events(lab)[n:] if line["event"] == "stage begins"]
    assert [line["stage"] for line in begun] == redone
    assert f"config: {override.split('=')[0]}" in begun[0]["because"]
    assert override.split("=")[1] in begun[0]["because"]


def test_changed_data_redoes_what_depends_on_them_and_says_so(lab):
    old_digest = Partitions(lab / NAME).manifest("prices", BEFORE)["digest"]
    stored(lab, PANEL.bars().with_columns(volume=pl.col("volume") * 2))
    n = len(events(lab))
    daily("run", f"date={BEFORE}")
    begun = [line for line in events(lab)[n:] if line["event"] == "stage begins"]
    assert [line["stage"] for line in begun] == [stage.name for stage in STAGES]
    assert begun[0]["because"] == "source changed"
    assert begun[2]["because"] == "prices changed"
    assert Partitions(lab / NAME).manifest("prices", BEFORE)["digest"] != old_digest


def test_a_grown_file_leaves_the_sessions_before_it_done(lab):
    stored(lab, PANEL.bars().filter(session_date() <= BEFORE))
    n = len(events(lab))
    daily("run", f"date={BEFORE}")  # the file now ends with that session: its content up to there did not change
    assert [line["stage"] for line in events(lab)[n:] if line["event"] == "stage begins"] == ["prices"]


KILLED = """
import os, signal, sys
from tests.integration.test_daily import SHRUNK
import tradsys.daily, tradsys.ops.daily.run as daily_run, tradsys.ops.daily.partitions as stages
where, day = sys.argv[1], sys.argv[2]
whole = stages.written_atomically

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "between":       # models are done, gates have not begun
    daily_run.STAGES = tuple(
        stage if stage.name != "gates" else type(stage)("gates", stage.reads, die, stage.config)
        for stage in daily_run.STAGES
    )
elif where == "inside":      # the features partition is half written
    stages.write_json = lambda path, value: die() if "features" in str(path) else None
else:                        # the bundles are there, their record is not
    import tradsys.ops.daily.training as training
    training.panel_metrics = die
tradsys.daily.work(["run", *SHRUNK, f"date={day}"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "kept", "redone"),
    [
        ("between", ["prices", "quality", "features", "labels", "models"], ["gates", "report"]),
        ("training", ["prices", "quality", "features", "labels"], ["models", "gates", "report"]),
    ],
)
def test_a_killed_run_goes_on_where_it_was(lab, published, where, kept, redone):
    shutil.rmtree(lab / NAME)
    done = run("-c", KILLED, where, str(BEFORE), cwd=lab)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    store = Partitions(lab / NAME)
    assert [stage.name for stage in STAGES if store.dates(stage.name)] == kept
    assert latest(store) is None
    n = len(events(lab))
    daily("run", f"date={BEFORE}")
    assert [line["stage"] for line in events(lab)[n:] if line["event"] == "stage begins"] == redone
    assert latest(store) == BEFORE
    undisturbed = Partitions(published / NAME)
    assert store.frame("models", BEFORE).equals(undisturbed.frame("models", BEFORE))
    assert store.frame("report", BEFORE, "plan").equals(undisturbed.frame("report", BEFORE, "plan"))


@pytest.mark.slow
def test_a_run_killed_inside_a_write_leaves_a_draft_that_the_next_one_sweeps(lab):
    shutil.rmtree(lab / NAME)
    inside_a_write = KILLED.replace("else None", "else whole_json(path, value)").replace(
        "whole = stages.written_atomically", "whole_json = stages.write_json"
    )
    done = run("-c", inside_a_write, "inside", str(BEFORE), cwd=lab)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    drafts = list((lab / NAME / "features").glob(".date=*.part"))
    assert len(drafts) == 1
    assert (drafts[0] / "features.parquet").exists()
    daily("run", f"date={BEFORE}")
    assert not drafts[0].exists()
    assert events(lab, event="swept")[-1]["paths"] == [str(drafts[0].relative_to(lab / NAME))]
    assert latest(Partitions(lab / NAME)) == BEFORE


def test_a_stopped_day_publishes_nothing_and_yesterdays_report_says_that_it_is_old(lab, capsys):
    page = lab / NAME / "report" / f"date={BEFORE}" / "report.html"
    assert "This report is old" not in page.read_text()
    with pytest.raises(GateError, match=rf"{DAY} is stopped by its gates.*nothing is published.*report of {BEFORE}"):
        daily("run", f"date={DAY}", "gates.rules.coverage.stop_below=1.01", "gates.rules.coverage.warn_below=1.01")
    store = Partitions(lab / NAME)
    assert latest(store) == BEFORE
    assert not store.folder("report", DAY).exists()
    assert old(store, BEFORE)["failed"] == str(DAY)
    assert "This report is old" in page.read_text()
    assert str(DAY) in page.read_text()
    assert "**This report is old.**" in page.with_suffix(".md").read_text()
    capsys.readouterr()
    daily("status")
    reported = " ".join(capsys.readouterr().out.split())  # wrapped at the width of the screen
    assert f"latest {BEFORE}" in reported
    assert f"the report of {BEFORE} is the newest, but {DAY} could not be published" in reported
    assert "stopped" in reported
    daily("run", f"date={DAY}")  # the bound is the configured one again
    assert latest(store) == DAY
    assert old(store, BEFORE) is None
    assert "This report is old" not in page.read_text()


def test_a_command_ends_a_stopped_day_with_exit_code_2_and_one_line(lab, capsys):
    with pytest.raises(SystemExit) as left:
        run_command("daily", work, ["run", *SHRUNK, f"date={DAY}", "gates.rules.disk_gb.stop_below=1e9",
                                 "gates.rules.disk_gb.warn_below=1e9"])  # fmt: skip
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "free disk" in lines[0]


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


def test_a_missing_partition_is_a_named_warning_and_a_missing_file_is_made_again(lab):
    daily("run", f"date={DAY}")
    store = Partitions(lab / NAME)
    shutil.rmtree(store.folder("models", BEFORE))
    (store.folder("features", DAY) / "features.parquet").unlink()
    shutil.rmtree(store.folder("models", EARLIER), ignore_errors=True)
    n = len(events(lab))
    daily("run", f"date={DAY}")
    begun = [line for line in events(lab)[n:] if line["event"] == "stage begins"]
    assert (begun[0]["stage"], begun[0]["because"]) == ("features", "features.parquet missing or altered")


def test_a_gap_in_the_live_record_is_reported(lab):
    daily("run", f"date={SESSIONS[-5]}")
    daily("run", f"date={DAY}")
    reported = Partitions(lab / NAME).document("report", DAY, "report")
    assert reported["missing_partitions"] == [str(SESSIONS[-4]), str(SESSIONS[-3])]
    assert "missing partition" in (lab / NAME / "report" / "latest" / "report.html").read_text()


def test_an_unknown_verb_names_the_verbs(lab):
    with pytest.raises(TradsysError.__mro__[1], match="'walk' is no verb; the verbs are run, report, status"):
        work(["walk"])


@pytest.mark.slow
def test_an_evaluation_walks_forward_and_holds_the_market_beside(lab, capsys):
    daily(
        "evaluate",
        "horizons=[5]",
        "years.n_folds=2",
        "years.test_bars=90",
        "years.valid_bars=60",
        "book.books.top_k.k=4",
    )
    folder = lab / NAME / "evaluation"
    reported = json.loads((folder / "report.json").read_text())
    assert {row["name"] for row in reported["strategies"]} == {"top_k 5d", "long_short 5d", "rank_weighted 5d"}
    assert reported["benchmark"]["name"] == "hold MKT"
    assert reported["refit"]["n"] == 0
    assert [part["n"] > 0 for part in reported["horizons"]["5d"]["by_fold"]] == [True, True]
    said = pl.read_parquet(folder / "predictions.parquet")
    assert said.group_by("fold").agg(pl.col("time").n_unique())["time"].to_list() == [90, 90]
    page = (folder / "report.html").read_text()
    assert "hold MKT" in page
    assert "equal to the bit" in page
    assert "hold MKT" in capsys.readouterr().out
    assert (lab / "runs" / "ledger.db").exists()  # every book's returns were written down before they were judged


def test_an_evaluation_of_bars_without_a_store_enters_the_ledger_by_their_content(tmp_path):
    work_on = [
        "evaluate", "data=synthetic_daily", "data.n_symbols=20", "data.n_sessions=700", "data.edge=0.3", "horizons=[5]",
        "years.n_folds=1", "years.test_bars=60", "years.valid_bars=60", "book.books.top_k.k=4",
        *(override for override in SHRUNK if override.startswith(("evaluation", "model"))),
    ]  # fmt: skip
    with inside(tmp_path):
        work(work_on)
    reported = json.loads((tmp_path / NAME / "evaluation" / "report.json").read_text())
    bars = SyntheticPanel(n_symbols=20, n_sessions=700, edge=0.3, seed=7).bars()
    assert reported["provenance"]["data"]["digest"] == content_digest(bars)


def test_an_evaluation_without_a_market_symbol_has_books_alone(tmp_path, capsys):
    work_on = [
        "evaluate", "data=synthetic_daily", "data.n_symbols=20", "data.n_sessions=700", "market_symbol=null",
        "data.source.market_symbol=MKT",
        "horizons=[5]", "years.n_folds=1", "years.test_bars=60", "years.valid_bars=60", "book.books.top_k.k=4",
        *(override for override in SHRUNK if override.startswith(("evaluation", "model"))),
    ]  # fmt: skip
    with inside(tmp_path):
        work(work_on)
    folder = tmp_path / NAME / "evaluation"
    reported = json.loads((folder / "report.json").read_text())
    assert reported["benchmark"] is None
    assert reported["span"]["words"] == ""
    assert "no market is held beside" in (folder / "report.html").read_text()
    assert "hold " not in capsys.readouterr().out


def test_an_experiment_without_a_signals_table_says_so(lab):
    with pytest.raises(TradsysError, match=r"foundry has no signals table.*\+experiment=panel"):
        daily("signals")
