"""Real hourly bars through the commands: fetched, trained, judged; and no number that is too good to be true."""

import json

import pytest

from tests.integration.conftest import inside
from tradsys.fetch import work as fetch
from tradsys.train import work as train

CHEAP = [
    "model=logistic",
    "evaluation.n_draws=100",
    "evaluation.n_permutations=1",
    "evaluation.n_placebos=20",
    "regime.lookback=48",
    "regime.n_seeds=2",
]


@pytest.mark.slow
def test_btc_from_the_vendors_file_to_a_verdict(shared_data, tmp_path, capsys):
    source = shared_data / "crypto" / "BTCUSDT_1h.parquet"
    with inside(tmp_path):
        fetch([f"path={source}", "layout=binance", "symbol=BTCUSDT", "name=crypto_hourly"])
        assert "61,246 bars" in capsys.readouterr().out
        train([*CHEAP, "data=btc_hourly", "split=reality", "evaluation.n_oof_folds=2"])
    run = tmp_path / "runs" / "train" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    logistic = metrics["models"]["primary"]
    assert 0.50 < logistic["auc"]["value"] < 0.56  # the reality check; above 0.60 is a leak
    assert logistic["log_loss"]["value"] == pytest.approx(0.691, abs=0.002)
    assert metrics["verdict"]["kind"] != "edge"
    data = json.loads((run / "data.json").read_text())
    assert (data["synthetic"], data["first"][:10], data["last"][:10]) == (False, "2018-01-01", "2025-01-01")
    assert "Nothing on this page is about a real market" not in (run / "report.html").read_text()
