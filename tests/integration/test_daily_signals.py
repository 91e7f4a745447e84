"""The panel's signals table through the command: what is written, and what a reader learns of the data first."""

import json

import polars as pl
import pytest

from tests.integration.conftest import inside, shrunk
from tradsys.daily import work

SMALL = ["features=panel_7", "signals.split.n_folds=3", "signals.valid_bars=80"]
SMALL += ["signals.regressor.n_estimators=20", "signals.regressor.min_child_samples=50"]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    with inside(folder):
        work(["signals", "+experiment=panel", *shrunk("panel"), *SMALL])
    return next(folder.glob("runs/daily/panel/signals/date=*"))


def test_every_member_has_a_rank_on_one_date(reported):
    table = pl.read_parquet(reported / "signals.parquet")
    assert {"symbol", "probability", "expected_return", "rank"} <= set(table.columns)
    assert sorted(table["rank"].to_list()) == list(range(1, table.height + 1))
    assert "MKT" not in table["symbol"].to_list()
    assert table["probability"].is_between(0, 1).all()


def test_the_judgement_says_what_the_data_are_and_where_the_gain_came_from(reported):
    judged = json.loads((reported / "judged.json").read_text())
    assert judged["synthetic"] == "synthetic panel with a planted edge of 0.1"
    assert judged["notes"] == []
    assert len(judged["folds"]) == 3
    shares = judged["importance"]["by_source"]
    assert sum(shares.values()) == pytest.approx(1)
    assert (shares["fundamentals"], shares["macro"]) == (0, 0)  # seven columns of prices alone
