"""What may be removed and what must stay; notices reach a real server, and their failure stops nothing."""

import http.server
import json
import threading
from datetime import UTC, date, datetime

import pytest

from tradsys.core.errors import GateError, TradsysError
from tradsys.ops.daily.operations.health import Check, check_keys, health, last_challenge, preflight
from tradsys.ops.daily.operations.notices import summary, with_notices
from tradsys.ops.daily.operations.retention import RetentionSettings, clean, leaving
from tradsys.ops.daily.operations.schedule import ScheduleSettings
from tradsys.ops.daily.partitions import Lineage, Partitions, StageOutput
from tradsys.ops.notify import Notifier

DAYS = [date(2022, 12, d) for d in (27, 28, 29, 30)]
REPORT = {
    "date": "2022-12-30", "verdict": {"kind": "no edge"}, "synthetic": None, "new": ["C"],
    "gates": [
        {"gate": "auc", "subject": "1d", "outcome": "pass", "said": "fine"},
        {"gate": "drift", "subject": "", "outcome": "warn", "said": "0.7 > 0.6"},
    ],
    "plan": {"rows": [{"symbol": "A", "weight": 0.1}, {"symbol": "C", "weight": None}]},
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Four sessions of three stages; the report of the second is the newest that is published."""
    store = Partitions(tmp_path / "daily")
    for day in DAYS:
        for stage in ("features", "models", "report"):
            store.write(stage, day, StageOutput(documents={"report": REPORT}), Lineage({}, {}), 0.1)
    (store.root / "report" / "latest").symlink_to(f"date={DAYS[1]}")
    return store


def kept(store, stage):
    return sorted(p.name for p in (store.root / stage).glob("date=*"))


def test_old_partitions_go_and_the_newest_published_report_stays(store):
    settings = RetentionSettings({"features": 1, "report": 1}, {}, dry_run=False)
    clean(store, settings)
    assert kept(store, "features") == ["date=2022-12-28", "date=2022-12-30"]
    assert kept(store, "report") == ["date=2022-12-28", "date=2022-12-30"]
    assert len(kept(store, "models")) == 4


def test_a_dry_run_names_and_keeps(store):
    settings = RetentionSettings({"features": 1}, {})
    assert [one.path.name for one in clean(store, settings)] == ["date=2022-12-27", "date=2022-12-29"]
    assert len(kept(store, "features")) == 4


def test_gigabytes_are_a_bound_too(store):
    assert len(leaving(store, RetentionSettings({}, {"features": 1e-9}))) == 3
    assert leaving(store, RetentionSettings({}, {"features": 1.0})) == []


@pytest.mark.parametrize("changes", [{"models": 3}, {"features": 0}])
def test_retention_that_would_lose_a_model_or_keep_nothing_is_refused(changes):
    with pytest.raises(TradsysError, match=r"daily: clean\.sessions"):
        RetentionSettings(changes, {})


def test_health_says_how_far_behind_the_newest_report_is(store, tmp_path):
    schedule = ScheduleSettings("cron", {"post": "16:45"}, tmp_path)
    late = health(store, "XNYS", schedule, 1, datetime(2022, 12, 31, 1, tzinfo=UTC))
    assert (late["ok"], late["last_session"], late["behind"]) == (False, "2022-12-28", 2)
    assert "at most 1" in late["problems"][0]
    assert late["gates"] == {"auc": "pass", "drift": "warn"}
    assert late["next_run"].startswith("2023-01-03T16:45")
    assert health(store, "XNYS", schedule, 2, datetime(2022, 12, 31, 1, tzinfo=UTC))["ok"]


def test_the_age_of_a_model_counts_from_its_last_challenge_not_from_its_last_forecast(store, tmp_path):
    (store.root / "models").rename(tmp_path / "before")  # forecasts of the 28th and 30th, the model is of the 28th
    spoke = {"5d": {"challenged": "2022-12-28"}, "20d": {"challenged": "2022-12-29"}}
    for day in DAYS[1:]:
        store.write("models", day, StageOutput(documents={"champions": spoke}), Lineage({}, {}), 0.1)
    assert last_challenge(store) == date(2022, 12, 28)
    for most, ok in ((2, True), (1, False)):
        checks = preflight(
            store, "XNYS", DAYS[-1], Check("keys", True, ""),
            least_free_gb=0, most_model_age=most, now=datetime(2022, 12, 31, 1, tzinfo=UTC),
        )  # fmt: skip
        assert [c.name for c in checks] == ["data", "disk", "keys", "calendar", "model", "lock", "last failure"]
        (model,) = [c for c in checks if c.name == "model"]
        assert (model.ok, model.found) == (ok, f"2 sessions old, at most {most}")


def test_keys_that_the_data_or_the_user_name_are_needed_and_never_shown(monkeypatch):
    config = {"data": {"parts": [{"http": {"key": "VENDOR_API_KEY", "key_as": "apikey"}}, {"key": "sma_20"}]}}
    monkeypatch.delenv("TRADSYS_NOTIFY", raising=False)
    monkeypatch.setenv("OTHER_API_KEY", "canary-of-a-key")
    lacking = check_keys(config, ["OTHER_API_KEY"])
    assert (lacking.ok, lacking.found) == (
        False, "VENDOR_API_KEY not set in the environment or .env; notices go to 0 targets",
    )  # fmt: skip
    monkeypatch.setenv("VENDOR_API_KEY", "x")
    assert check_keys(config, ["OTHER_API_KEY"]) == Check(
        "keys", True, "OTHER_API_KEY, VENDOR_API_KEY; notices go to 0 targets"
    )
    monkeypatch.setenv("TRADSYS_NOTIFY", "json://127.0.0.1:1/ nothing://that.exists")
    refused = check_keys({}, [])
    assert not refused.ok
    assert "URL number 2 of TRADSYS_NOTIFY" in refused.found


@pytest.fixture
def inbox():
    """A real HTTP server that keeps what it is sent, and its apprise URL."""
    received = []

    class Keep(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield received, f"json://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def test_a_published_session_is_one_notice_with_its_plan_and_page(inbox, tmp_path):
    received, url = inbox
    with_notices(Notifier([url]), "foundry", lambda: (REPORT, tmp_path / "report.html"))
    (notice,) = received
    assert notice["title"] == "tradsys daily foundry: 2022-12-30"
    for words in ("no edge", "warn: drift", "A 10.0%", "new in the plan: C", "report.html"):
        assert words in notice["message"]


def test_a_stopped_gate_is_a_notice_and_still_an_error(inbox):
    received, url = inbox

    def stopped():
        raise GateError("daily: prices end 2022-12-01; fetch newer data")

    with pytest.raises(GateError):
        with_notices(Notifier([url]), "foundry", stopped)
    assert received[0]["title"].endswith("stopped")
    assert "fetch newer data" in received[0]["message"]


def test_a_retraining_that_a_library_fails_in_is_a_notice_and_still_an_error(inbox):
    received, url = inbox

    def retrained():
        raise RuntimeError("models 5d: LightGBM: best gain is -inf")

    with pytest.raises(RuntimeError):
        with_notices(Notifier([url]), "foundry", retrained)
    assert received[0]["title"] == "tradsys daily foundry: failed"
    assert "RuntimeError: models 5d: LightGBM" in received[0]["message"]


def test_nothing_to_do_sends_nothing_and_a_dead_server_stops_nothing(inbox, caplog):
    received, url = inbox
    with_notices(Notifier([url]), "foundry", lambda: None)
    assert received == []
    with_notices(Notifier(["json://127.0.0.1:1/"]), "foundry", lambda: (REPORT, "page"))
    assert "did not accept the notice" in caplog.text


def test_synthetic_data_are_said_first():
    _, text = summary("foundry", REPORT | {"synthetic": "a planted edge"}, "page")
    assert text.startswith("SYNTHETIC DATA")
