"""The evaluation of a daily pipeline: years forward, the market beside, the ledger."""

import json

import polars as pl
import pytest

from tests.daily_lab import NAME, SHRUNK, daily
from tests.integration.conftest import inside
from tradsys.core.errors import DataError
from tradsys.daily import work
from tradsys.market.bars import content_digest
from tradsys.market.synthetic_panel import SyntheticPanel


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
    assert "are bitwise equal" in page
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
    (tmp_path / "runs/ledger.db").unlink()  # the evaluation still knows what was looked at
    with inside(tmp_path), pytest.raises(DataError, match="is gone, but 1 runs wrote to it"):
        work(work_on)


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
    assert "there is no benchmark" in (folder / "report.html").read_text()
    assert "hold " not in capsys.readouterr().out
