"""The verbs of `trade` on a bundle of the shrunk run: what is refused, what is shown, what is left for a bot."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.integration.conftest import inside
from tests.unit.reports.sample_pages import faults
from tradsys.core.errors import BundleError, DataError, GateError, TradsysError
from tradsys.ops.trading.bot import JOURNAL, LOCK, opened
from tradsys.ops.trading.store import TradeJournal
from tradsys.trade import work


@pytest.fixture(scope="module")
def replayed(run_folder):
    with inside(run_folder.parents[2]):
        work(["replay", "strategy=reckless", "levels=quantile", "strategy.reckless.rule.value=0.3",
              "until=2023-02-26", "name=shown"])  # fmt: skip
    return run_folder.parents[2]


def test_live_needs_confirmation_and_an_edge(run_folder):
    with inside(run_folder.parents[2]):
        with pytest.raises(GateError, match="confirm=None; real orders need confirm=live"):
            work(["live"])
        with pytest.raises(GateError, match="only `edge` may trade real money; accept_verdict=true overrides this"):
            work(["live", "confirm=live"])


def test_live_reads_keys_from_the_environment_alone(run_folder, monkeypatch):
    pytest.importorskip("ccxt", reason="the live extra is not installed: pip install 'tradsys[live]'")
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    with inside(run_folder.parents[2]), pytest.raises(TradsysError, match="BINANCE_API_KEY is empty"):
        work(["live", "confirm=live", "accept_verdict=true"])


@pytest.mark.parametrize("profile", ["SNIPER", "Cost_Aware"])
def test_the_environment_names_the_profile_in_any_case(run_folder, monkeypatch, capsys, profile):
    monkeypatch.setenv("STRATEGY_PROFILE", profile)
    with inside(run_folder.parents[2]):
        work(["replay", "until=2023-02-24T03:00"])
    assert f"-{profile.lower()}-" in capsys.readouterr().out


def test_status_and_page_tell_what_the_journal_holds(replayed, capsys):
    with inside(replayed):
        work(["status", "name=shown"])
        out = capsys.readouterr().out
        assert "SYNTHETIC DATA: " in out
        assert "shown: not running, replay of" in out
        assert "equity" in out
        work(["report", "name=shown"])
    page = (replayed / "runs/trade/shown/report.html").read_text()
    assert "Open positions" in page
    assert "Last decisions" in page
    assert "<strong>SYNTHETIC DATA:</strong>" in page
    assert faults(page) == []


def test_a_replay_of_bars_that_the_bundle_was_fitted_on_is_called_one(run_folder, replayed, capsys):
    settings = ["strategy=reckless", "until=2023-02-24T03:00", "name=seen"]
    with inside(run_folder.parents[2]):
        work(["replay", *settings, "since=2023-02-20"])
        assert "IN SAMPLE: the bundle was fitted on bars from 2023-01-" in capsys.readouterr().out
        work(["status", "name=seen"])
        assert "IN SAMPLE: " in capsys.readouterr().out
        work(["status", "name=shown"])
        assert "IN SAMPLE: " not in capsys.readouterr().out
    folder = run_folder.parents[2] / "runs/trade/seen"
    page = (folder / "report.html").read_text()
    assert "<strong>IN SAMPLE:</strong> the bundle was fitted on bars from" in page
    assert faults(page) == []
    shutil.rmtree(folder)  # commands without name= are about the newest bot


def test_a_request_waits_for_a_bot_that_does_not_run(replayed, capsys):
    with inside(replayed):
        work(["resume", "name=shown"])
    assert "is not running; `resume` takes effect when it starts again" in capsys.readouterr().out
    assert TradeJournal(replayed / "runs/trade/shown" / JOURNAL).requests(0)[-1][1] == "resume"


def test_unknown_names_are_one_line(replayed):
    with inside(replayed):
        with pytest.raises(DataError, match="no bot 'nobody'"):
            work(["status", "name=nobody"])
        with pytest.raises(TradsysError, match="a folder's name has at most 100"):
            work(["status", "name=../../x"])
        with pytest.raises(ValueError, match="'sell' is no verb"):
            work(["sell"])


def test_a_start_that_was_refused_is_no_bot(replayed, capsys):
    """It leaves a lock and an empty journal, newer than those of the bot that ran."""
    refused = replayed / "runs/trade/refused"
    refused.mkdir()
    (refused / LOCK).touch()
    TradeJournal(refused / JOURNAL).close()
    os.utime(refused / LOCK, (2e9, 2e9))
    with inside(replayed):
        work(["status"])
        assert "shown: not running, replay of" in capsys.readouterr().out
        for verb in ("status", "report"):
            with pytest.raises(DataError, match=r"^trade: refused has not begun, its journal is empty"):
                work([verb, "name=refused"])


def test_no_symbols_and_no_folder_to_follow_are_refused(run_folder, tmp_path):
    with inside(run_folder.parents[2]):
        for verb in ("paper", "replay"):
            with pytest.raises(DataError, match=rf"^trade {verb}: symbols=\[\] names nothing to trade"):
                work([verb, "strategy=reckless", "levels=quantile", "symbols=[]"])
        with pytest.raises(BundleError, match=r"^trade: follow=nowhere: no such folder"):
            work(["paper", "strategy=reckless", "levels=quantile", "follow=nowhere"])


def test_two_bots_on_one_journal_are_refused(replayed, run_folder):
    from tests.exchange.coin import coin_plan

    plan = coin_plan(replayed / "runs/trade/twice")
    words = r"another bot runs in .*twice; one bot per journal"
    with opened(plan), pytest.raises(TradsysError, match=words), opened(plan):
        pass


def test_a_journal_that_was_changed_is_refused(tmp_path):
    import sqlite3

    from tests.exchange.coin import coin_plan

    plan = coin_plan(tmp_path / "bot")
    with opened(plan) as (journal, _):
        journal.append([("note", {"a": 1}), ("note", {"b": 2})])
    with sqlite3.connect(plan.folder / JOURNAL) as connection:
        connection.execute("DROP TRIGGER events_no_UPDATE")
        connection.execute("UPDATE events SET body='{}' WHERE id=1")
    connection.close()
    with pytest.raises(TradsysError, match="the record was changed outside the bot"), opened(plan):
        pass


def test_the_bot_imports_neither_torch_nor_hydra():
    code = (
        "import sys, tradsys.ops.trading.commands\n"
        "print([m for m in ('torch', 'pytorch_lightning', 'hydra', 'ccxt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
