"""The main job at small size: train -> save -> load -> backtest -> replay bar by bar -> the same decisions."""

import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from tests.integration.conftest import SHRUNK, inside
from tradsys.core.errors import BundleError, GateError
from tradsys.market.synthetic import SyntheticMarket
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import replay
from tradsys.serving.strategy import AuditMask, BreakEvenRule, Profile, RegimeMask, Strategy, ThresholdRule


@pytest.fixture(scope="session")
def bundle(run_folder):
    return Bundle.load(run_folder / "bundle")


@pytest.fixture(scope="session")
def bars(bundle):
    config = dict(bundle.data_config()["source"])
    config.pop("_target_")
    return SyntheticMarket(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}).bars()


def test_a_run_leaves_all_its_files(run_folder):
    names = {p.name for p in run_folder.resolve().iterdir()}
    assert {
        "config.yaml", "overrides.txt", "metrics.json", "predictions.parquet", "trades.parquet", "bundle",
        "report.html", "report.json", "log.txt", "data.json", "checkpoints",
    } <= names  # fmt: skip
    assert {p.name for p in (run_folder / "bundle").iterdir()} == {
        "model.onnx", "regime.json", "auditor.json", "card.json",
    }  # fmt: skip


def test_batch_and_bar_by_bar_replay_agree(bundle, bars):
    times = bars["time"].unique().sort()
    since = times[len(times) - 12]
    batch = bundle.predict(bars, since)
    live = replay(bundle, bars, since)
    assert batch.select("symbol", "time").equals(live.select("symbol", "time"))
    for column in ("score", "probability", "audit"):
        np.testing.assert_allclose(live[column], batch[column], rtol=0, atol=1e-6)
    assert live["regime"].to_list() == batch["regime"].to_list()
    profiles = {
        "all": Profile(ThresholdRule(0.3, "quantile", short=True)),
        "audited": Profile(ThresholdRule(0.2, "score"), [RegimeMask(["calm"]), AuditMask(0.3)]),
        "break_even": Profile(BreakEvenRule(-0.3)),
    }
    for name, profile in profiles.items():
        strategy = Strategy(name, bundle, profile, round_trip=0.003)
        decided, decided_live = (strategy.targets(bars, since, p) for p in (batch, live))
        key = ["symbol", "time", "side", "size", "horizon_bars"]
        assert decided.select(key).equals(decided_live.select(key))
        np.testing.assert_allclose(decided["take_profit"], decided_live["take_profit"], rtol=1e-7)
    assert len(Strategy("all", bundle, profiles["all"], 0.003).targets(bars, since, batch)) > 0


def test_prediction_does_not_know_the_future(bundle, bars):
    times = bars["time"].unique().sort()
    since, cut = times[-40], times[-20]
    poisoned = bars.with_columns(
        pl.when(pl.col("time") > cut).then(pl.col(c) * 3).otherwise(pl.col(c)).alias(c)
        for c in ("open", "high", "low", "close", "volume")
    )
    truth = bundle.predict(bars, since).filter(pl.col("time") <= cut)
    reported = bundle.predict(poisoned, since).filter(pl.col("time") <= cut)
    assert truth.equals(reported)
    assert not bundle.predict(bars, since).equals(bundle.predict(poisoned, since))  # the poison is strong enough


def test_test_predictions_of_the_run_are_the_bundles(run_folder, bundle, bars):
    stored = pl.read_parquet(run_folder / "predictions.parquet")
    again = bundle.predict(bars, stored["time"].min())
    both = stored.join(again, on=["symbol", "time"], how="inner")
    assert len(both) == len(stored)
    np.testing.assert_allclose(both["primary"], both["probability"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["model.onnx", "regime.json", "auditor.json", "card.json"])
def test_a_tampered_bundle_is_refused_by_name(bundle, tmp_path, name):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle.folder, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        Bundle.load(copy)


def test_a_missing_file_and_a_stranger_are_refused(bundle, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle.folder, copy)
    (copy / "regime.json").rename(copy / "other.json")
    with pytest.raises(BundleError, match=r"missing \['regime.json'\], unknown \['other.json'\]"):
        Bundle.load(copy)


def test_bundle_serves_without_torch(run_folder):
    code = (
        "import sys\n"
        "from tradsys.market.synthetic import SyntheticMarket\n"
        "from tradsys.serving.bundle import Bundle\n"
        f"bundle = Bundle.load({str(run_folder / 'bundle')!r})\n"
        "frame = bundle.predict(SyntheticMarket(n_bars=900).bars())\n"
        "assert len(frame) > 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_read_of_test_data_is_in_the_ledger(run_folder):
    ledger = TrialLedger(run_folder.parents[1] / "ledger.db")
    assert ledger.verify() == []
    subjects = [(e["purpose"], e["subject"]) for e in ledger.entries()]
    models = {s for p, s in subjects if p == "model on test"}
    strategies = {s for p, s in subjects if p.endswith("strategy on test")}
    assert models == {"primary", "base_rate", "logistic", "lightgbm"}
    assert strategies == {"sniper", "audited", "reckless", "cost_aware"}


def test_backtest_command_reads_again_and_the_ledger_grows(run_folder, capsys):
    from tradsys.backtest import work

    with inside(run_folder.parents[2]):
        before = len(TrialLedger(run_folder.parents[1] / "ledger.db").entries())
        work(["bundle=runs/train/latest/bundle", "strategy=[reckless,top_decile]", "evaluation.n_draws=50"])
        after = TrialLedger(run_folder.parents[1] / "ledger.db").entries()
    assert len(after) == before + 2
    trained = json.loads((run_folder / "metrics.json").read_text())["strategies"]["reckless"]
    retested = json.loads((run_folder.parents[1] / "backtest/latest/metrics.json").read_text())["strategies"][
        "reckless"
    ]
    for key in ("total_return", "n_trades", "max_drawdown", "costs_paid"):
        assert retested[key] == trained[key], key
    printed = capsys.readouterr().out
    assert "top_decile" in printed
    assert "SYNTHETIC" in printed


def test_only_an_edge_is_promoted_without_force(run_folder):
    from tradsys.research.promotion import promote

    models = run_folder.parents[2] / "models"
    verdict = json.loads((run_folder / "metrics.json").read_text())["verdict"]["kind"]
    if verdict != "edge":
        with pytest.raises(GateError, match="force=true"):
            promote(run_folder, models, "demo")
        assert not models.exists()
    first, second = (promote(run_folder, models, "demo", force=True) for _ in range(2))
    assert (first.name, second.name) == ("1", "2")
    assert Bundle.load(second).card["verdict"]["kind"] == verdict


def test_the_same_run_twice_gives_the_same_numbers(run_folder, tmp_path):
    from tradsys.train import work

    with inside(tmp_path):
        work(SHRUNK)
    again = json.loads((tmp_path / "runs/train/latest/metrics.json").read_text())
    first = json.loads((run_folder / "metrics.json").read_text())
    assert again["models"] == first["models"]
    assert (tmp_path / "runs/train/latest/bundle/model.onnx").read_bytes() == (
        run_folder / "bundle" / "model.onnx"
    ).read_bytes()


def test_validation_and_test_lie_later_than_training(bundle):
    spans = {k: [datetime.fromisoformat(t) for t in v] for k, v in bundle.card["span"].items()}
    assert spans["train"][1] < spans["valid"][0] <= spans["valid"][1] < spans["test"][0]
