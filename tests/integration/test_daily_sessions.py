"""Daily runs of several sessions: the champion and its challengers, and what a change or a gap makes again."""

import shutil

import polars as pl
import pytest

from tests.daily_lab import BEFORE, DAY, EARLIER, NAME, PANEL, SESSIONS, daily, events, stored
from tradsys.market.calendars import session_date
from tradsys.ops.daily.partitions import Partitions
from tradsys.ops.daily.publishing import latest
from tradsys.ops.daily.run import STAGES


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


def frames_of(store, day):
    """Every frame of a session by stage and file; the free space of the disk is left out."""
    paths = [path for stage in STAGES for path in sorted(store.folder(stage.name, day).glob("*.parquet"))]
    frames = {(path.parent.parent.name, path.name): pl.read_parquet(path) for path in paths}
    gates = frames["gates", "gates.parquet"]
    return frames | {("gates", "gates.parquet"): gates.filter(pl.col("gate") != "disk_gb")}


def test_an_added_session_is_that_of_a_run_from_scratch(lab):
    daily("run", f"date={DAY}")
    store = Partitions(lab / NAME)
    added = frames_of(store, DAY)
    assert len(added) == 8
    shutil.rmtree(store.folder("models", DAY))
    daily("run", f"date={DAY}")  # goes on behind the features, which it computes anew
    resumed = frames_of(store, DAY)
    shutil.rmtree(lab / NAME)
    daily("run", f"date={BEFORE}", f"until={DAY}")
    whole = frames_of(store, DAY)
    assert added.keys() == resumed.keys() == whole.keys()
    for name, frame in added.items():
        assert frame.equals(resumed[name]), name
        assert frame.equals(whole[name]), name


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
