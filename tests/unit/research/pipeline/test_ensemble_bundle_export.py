"""A pool's files answer as the fitted pool does, to float rounding."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.models.test_market_regime import REGIME, panel, samples
from tradsys.core.errors import BundleError
from tradsys.models.boosting import LightGbm
from tradsys.models.calibrators import Isotonic
from tradsys.models.ensembles.compose import Average
from tradsys.models.ensembles.regime_pooled import RegimePooled
from tradsys.models.linear import LogisticRegression, Ridge
from tradsys.models.transforms import RobustScaler
from tradsys.research.pipeline.bundle_export import has_graph, is_pool, write_pool
from tradsys.research.sections.ensemble_weights import ensemble_section
from tradsys.serving.ensemble import FILE, ServedEnsemble

MEMBERS = {
    "line": LogisticRegression(C=1.0),
    "ridge": Ridge(1.0, class_weight="balanced"),
    "trees": LightGbm(n_estimators=10, n_threads=1),
}
WEIGHTS = {"trees": 0.7, "line": 0.2, "ridge": 0.1}
# no graph is written for these, which takes a second each
FEW, MORE = LightGbm(n_estimators=5, n_threads=1), LightGbm(n_estimators=40, early_stopping_rounds=0, n_threads=1)
TREES = {"few": FEW, "more": MORE}
LEANING = {"few": 0.8, "more": 0.2}


@pytest.fixture(scope="module")
def parts():
    table, wild = panel()
    return samples(table, wild)


def written(model, parts, folder):
    """The fitted model, its calibrator, what ensemble.json says and the pool that it serves."""
    train, valid = parts
    folder.mkdir(exist_ok=True)
    done = model.fit(train, valid)
    calibrator = Isotonic().fit(done.predict_proba(valid.table, valid.rows), valid.y, valid.weight)
    write_pool(done, calibrator, folder, valid.take(np.arange(0, len(valid), 7)))
    served = ServedEnsemble.load(folder, calibrator.to_json(), len(valid.table.names))
    return done, calibrator, json.loads((folder / FILE).read_text()), served


def test_lines_and_trees_are_served_with_their_weights(parts, tmp_path):
    valid = parts[1]
    done, calibrator, reported, served = written(Average(MEMBERS, RobustScaler(), WEIGHTS), parts, tmp_path / "pool")
    assert is_pool(done)
    assert reported["weights"] == pytest.approx(WEIGHTS)
    score, probability = served.predict(valid.table, valid.rows)
    expected = done.predict_proba(valid.table, valid.rows)
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(probability, calibrator.apply(expected), rtol=0, atol=1e-9)
    shown = {row["name"]: row["weight"] for row in ensemble_section(SimpleNamespace(model_=done))["members"]}
    assert shown == pytest.approx(reported["weights"])


def test_neither_trees_nor_coefficients_load_the_exporter(parts, monkeypatch):
    """It brings torch, a third of what a daily run of such models takes to train."""
    monkeypatch.setitem(sys.modules, "tradsys.models.onnx_export", None)  # an import of it would raise
    fitted = Average({"line": LogisticRegression(), "trees": LightGbm(n_estimators=5)}).fit(*parts)
    assert is_pool(fitted)
    assert has_graph(Average({"line": LogisticRegression(), "same": LogisticRegression()}).fit(*parts))


def test_weights_do_change_what_is_served(parts, tmp_path):
    valid = parts[1]
    both = [written(Average(TREES, None, w), parts, tmp_path / f"{bool(w)}")[3] for w in (None, LEANING)]
    gap = both[0].predict(valid.table, valid.rows)[0] - both[1].predict(valid.table, valid.rows)[0]
    assert np.abs(gap).max() > 1e-3


def test_a_file_of_before_weights_could_be_given_still_loads(parts, tmp_path):
    """As the format was written then: one weight 1 / K per member, and no key beside those here."""
    valid = parts[1]
    done, calibrator, reported, _ = written(Average(TREES), parts, tmp_path / "pool")
    keys = ("kind", "lookback", "weights", "state_weights", "floor", "base_rate", "regime", "members")
    assert set(reported) == set(keys)
    old = {key: reported[key] for key in keys} | {"weights": dict.fromkeys(TREES, 1 / 2)}
    (tmp_path / "pool" / FILE).write_text(json.dumps(old))
    served = ServedEnsemble.load(tmp_path / "pool", calibrator.to_json(), len(valid.table.names))
    expected = np.mean([m.predict_proba(valid.table, valid.rows) for m in done.members_.values()], axis=0)
    np.testing.assert_allclose(served.predict(valid.table, valid.rows)[0], expected, rtol=0, atol=1e-12)


def test_a_model_per_regime_is_served_with_the_markets_state(parts, tmp_path):
    valid = parts[1]
    inner = Average(TREES, weights=LEANING)
    done, _, reported, served = written(RegimePooled(inner, REGIME, 30.0), parts, tmp_path / "pool")
    assert reported["kind"] == "regime_pooled"
    assert reported["regime"]["market_symbol"] == "SPY"
    assert [one["name"] for one in reported["members"]] == ["common", "in_calm", "in_wild"]
    assert (tmp_path / "pool" / "member_in_wild_few.txt").exists()
    score = served.predict(valid.table, valid.rows)[0]
    np.testing.assert_allclose(score, done.predict_proba(valid.table, valid.rows), rtol=0, atol=1e-12)
    alone = np.vstack([served.predict(valid.table, valid.rows[[i]])[0] for i in range(10)])
    np.testing.assert_allclose(alone, score[:10], rtol=0, atol=1e-12)
    section = ensemble_section(SimpleNamespace(model_=done))
    json.dumps(section, allow_nan=False)
    assert [s["name"] for s in section["states"]] == ["calm", "wild"]
    n = done.n_effective_
    assert section["states"][1]["weights"]["in_wild"] == pytest.approx(n[1] / (n[1] + 30))
    assert sum(row["weight"] for row in section["members"]) == pytest.approx(1)
    assert served.lookback == done.lookback == REGIME.lookback


def test_a_weight_too_many_or_too_few_is_refused(parts, tmp_path):
    _, calibrator, reported, _ = written(Average(TREES, None, LEANING), parts, tmp_path / "pool")
    for weights in ({"few": 1.0}, LEANING | {"who": 0.0}):
        (tmp_path / "pool" / FILE).write_text(json.dumps(reported | {"weights": weights}))
        with pytest.raises(BundleError, match="its members are"):
            ServedEnsemble.load(tmp_path / "pool", calibrator.to_json(), 2)
