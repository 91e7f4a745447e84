"""A pool of graphs, trees and a regime as one artefact: fitted = bundle, batch = bar by bar, refused where altered."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.integration.conftest import inside, shrunk
from tradsys.config.compose import as_dict, build, compose
from tradsys.core.errors import BundleError
from tradsys.models.boosting import LightGbm
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.ensembles.out_of_fold import HeldOut
from tradsys.models.ensembles.stacked import RegimeWeighted
from tradsys.models.linear import LogisticRegression
from tradsys.research.pipeline.bundle_export import export_bundle
from tradsys.research.pipeline.dataset import load_bars, prepare
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import fit
from tradsys.research.sections.ensemble_weights import ensemble_section
from tradsys.serving.bundle import Bundle, seal
from tradsys.serving.session import replay

# one Transformer, where the experiment has the mean of its seeds
POOL = [o.replace("transformer.model.", "transformer.") for o in shrunk("ensemble") if "transformer.n_seeds" not in o]
NESTED = {"seeds": SeedAverage(LightGbm(n_estimators=10, n_threads=1), 2)}
FILES = {
    "member_logistic.json", "member_lightgbm.txt", "member_transformer.onnx", "member_seeds_seed_0.txt",
    "member_seeds_seed_1.txt", "ensemble.json", "regime.json", "card.json",
}  # fmt: skip


def shared_out(self, weight_N):
    """Weights for every member that differ by state, whatever was earned: all kinds of file are to be written."""
    lean = (weight_N * np.linspace(0, 1, len(weight_N))).sum() / weight_N.sum()
    w = np.linspace(1, 2, self.likelihood_NK.shape[1]) ** (4 * lean)
    return w / w.sum()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The prepared data, the fitted parts and the bundle of a regime-weighted pool."""
    folder = tmp_path_factory.mktemp("pool")
    config = compose("train", [*POOL, "model=regime_weighted"])
    experiment = Experiment.of(build(config))
    members = {**experiment.model.members, **NESTED}
    experiment = replace(experiment, model=replace(experiment.model, members=members), baselines={}, auditor=None)
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "weights", shared_out)
        prepared = prepare(experiment, load_bars(experiment))
        fitted = fit(experiment, prepared, folder / "checkpoints", Timings())
        bundle = export_bundle(experiment, prepared, fitted, folder / "bundle", as_dict(config))
    return prepared, fitted, bundle


def test_every_member_has_its_file_and_the_card_seals_it(made):
    _, _, bundle = made
    assert {p.name for p in bundle.folder.iterdir()} == FILES
    assert bundle.card["model"]["kind"] == "ensemble"
    assert set(bundle.card["files"]) == FILES - {"card.json"}
    reported = json.loads((bundle.folder / "ensemble.json").read_text())
    assert reported["kind"] == "regime_weighted"
    assert [one["kind"] for one in reported["members"]] == ["logistic", "lightgbm", "onnx", "average"]
    assert reported["floor"] == 0.01
    assert sum(reported["base_rate"]) == pytest.approx(1)


def test_the_bundle_answers_as_the_fitted_pool(made):
    prepared, fitted, bundle = made
    assert isinstance(fitted.primary.model_, RegimeWeighted)
    rows = prepared.test.rows
    score, probability = bundle.primary.predict(prepared.table, rows)
    np.testing.assert_allclose(score, fitted.primary.score(prepared.table, rows), rtol=0, atol=1e-6)
    np.testing.assert_allclose(probability, fitted.primary.predict_proba(prepared.table, rows), rtol=0, atol=1e-6)
    assert score[:, 1].std() > 0.01
    spread = bundle.primary.predict_with_spread(prepared.table, rows)[2]
    assert spread.shape == score.shape
    assert (spread[:, 1] > 0).all()
    assert bundle.lookback == bundle.primary.lookback == fitted.primary.lookback == 48
    states = fitted.primary.model_.state_weights_
    assert np.ptp(states, axis=0).max() > 0.01  # states do weigh differently, so the regime is served too


def test_batch_and_bar_by_bar_replay_agree(made):
    prepared, _, bundle = made
    bars = prepared.bars.drop("segment")
    times = bars["time"].unique().sort()
    since = times[len(times) - 6]
    batch, live = bundle.predict(bars, since), replay(bundle, bars, since)
    assert batch.select("symbol", "time").equals(live.select("symbol", "time"))
    assert len(batch) == 18
    for column in ("score", "probability", "spread"):
        np.testing.assert_allclose(live[column], batch[column], rtol=0, atol=1e-6)


def test_a_pool_serves_without_torch(made):
    code = (
        "import sys\n"
        "from tradsys.market.synthetic import SyntheticMarket\n"
        "from tradsys.serving.bundle import Bundle\n"
        f"frame = Bundle.load({str(made[2].folder)!r}).predict(SyntheticMarket(n_bars=900).bars())\n"
        "assert len(frame) > 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["member_lightgbm.txt", "member_transformer.onnx", "ensemble.json"])
def test_an_altered_or_missing_member_is_refused_by_name(made, tmp_path, name):
    copy = tmp_path / "bundle"
    shutil.copytree(made[2].folder, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=rf"altered \['{name}'\]"):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"missing \['{name}'\]"):
        Bundle.load(copy)


def resealed(made, folder, change):
    """A copy of the bundle whose ensemble.json was changed before it was sealed, as other code might write it."""
    shutil.copytree(made[2].folder, folder)
    reported = json.loads((folder / "ensemble.json").read_text())
    change(reported)
    (folder / "ensemble.json").write_text(json.dumps(reported))
    seal(folder, made[2].card)
    return folder


def test_what_other_code_wrote_is_refused_in_words(made, tmp_path):
    def unknown(reported):
        reported["members"][0]["kind"] = "oracle"

    def stranger(reported):
        reported["state_weights"][0]["who"] = 0.1

    def shorter(reported):
        reported["members"][2]["lookback"] = 7

    def alone(reported):
        reported.update(reported["members"][0])

    for name, change, words in (
        ("kind", unknown, r"member 'logistic' is of kind 'oracle', not one of \['onnx'"),
        ("weight", stranger, r"has weights for \[.*'who'\], its members are"),
        ("window", shorter, r"member_transformer.onnx reads \[8, .*state \[7,"),
        ("single", alone, "is of kind 'logistic', not one of"),
    ):
        with pytest.raises(BundleError, match=words):
            Bundle.load(resealed(made, tmp_path / name, change))


def test_the_report_tells_weights_skills_and_states(made):
    _, fitted, _ = made
    reported = ensemble_section(fitted.primary)
    json.dumps(reported, allow_nan=False)
    pool = fitted.primary.model_
    assert [m["name"] for m in reported["members"]] == [*pool.members, "base_rate"]
    for row in reported["members"][:-1]:
        assert row["weight"] == pool.weights_[row["name"]]
        assert row["skill"] == pool.skills_[row["name"]].as_dict()
    assert [s["name"] for s in reported["states"]] == ["calm", "trend", "panic"]
    np.testing.assert_array_equal([list(s["weights"].values()) for s in reported["states"]], pool.state_weights_)


@pytest.mark.parametrize("whole", [True, False], ids=["graphs alone are one graph", "with trees it is a pool"])
def test_an_average_is_one_graph_where_it_can_be(made, tmp_path, whole):
    prepared = made[0]
    config = compose("train", [*POOL, "model=stacked"])
    experiment = Experiment.of(build(config))
    other = LogisticRegression(C=1.0) if whole else LightGbm(n_estimators=10, n_threads=1)
    model = Average({"line": LogisticRegression(C=0.01), "other": other}, experiment.transforms)
    experiment = replace(experiment, model=model, baselines={}, auditor=None)
    done = fit(experiment, prepared, tmp_path / "checkpoints", Timings())
    written = export_bundle(experiment, prepared, done, tmp_path / "bundle", as_dict(config))
    assert written.card["model"]["kind"] == ("onnx" if whole else "ensemble")
    expected = done.primary.predict_proba(prepared.table, prepared.test.rows)
    _, got, spread = written.primary.predict_with_spread(prepared.table, prepared.test.rows)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    members = done.primary.model_.members_.values()
    each = [one.predict_proba(prepared.table, prepared.test.rows) for one in members]
    np.testing.assert_allclose(spread, np.std(each, axis=0), rtol=0, atol=1e-6)
    assert [m["weight"] for m in ensemble_section(done.primary)["members"]] == [0.5, 0.5]
