import logging

import numpy as np
import pytest

from tests.unit.models.test_market_regime import HMM, REGIME, panel, samples
from tests.unit.models.test_pools import FOLDERS, Noise
from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import Samples
from tradsys.models.boosting import LightGbm
from tradsys.models.ensembles.compose import Average, Scaled
from tradsys.models.ensembles.regime_pooled import RegimePooled
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler
from tradsys.samples.splits import span_bars

LINE = LogisticRegression(C=1.0)


def log_loss(model: Model, held: Samples) -> float:
    proba = model.predict_proba(held.table, held.rows)
    return float(-np.log(proba[np.arange(len(held)), held.y]).mean())


@pytest.fixture(scope="module")
def parts():
    table, wild = panel()
    return samples(table, wild)


def test_where_the_same_signal_means_the_opposite_a_model_per_state_learns_what_one_cannot(parts):
    train, valid = parts
    done = RegimePooled(LINE, REGIME, 10.0).fit(train, valid)
    common = log_loss(LINE.fit(train, valid), valid)
    assert common > 0.68
    assert log_loss(done, valid) < 0.6
    assert isinstance(done, Model)
    assert list(done.members_) == ["common", "in_calm", "in_wild"]


def test_it_is_the_stated_mixture(parts):
    """sum_s belief_s (n_s p_s + kappa p) / (n_s + kappa), the copies fitted here by hand."""
    train, valid = parts
    kappa = 60.0
    done = RegimePooled(LINE, REGIME, kappa, RobustScaler()).fit(train, valid)
    whole = Scaled(RobustScaler(), LINE)
    belief_NS = REGIME.fit(train, valid).predict_proba(train.table, train.rows)
    _, decision, end = span_bars(train)
    open_ = np.zeros(decision.max() + 10)
    for d, e in zip(decision, end, strict=True):
        open_[d + 1 : e + 1] += 1
    uniqueness = np.array([(1 / open_[d + 1 : e + 1]).mean() for d, e in zip(decision, end, strict=True)])
    n_S = (belief_NS * uniqueness[:, None]).sum(axis=0)
    np.testing.assert_allclose(done.n_effective_, n_S, rtol=1e-10)
    # every date counts once however many names, and a label of two days half
    assert n_S.sum() == pytest.approx((decision.max() - decision.min() + 2) / 2, rel=0.02)
    expected = np.zeros((len(valid), 2))
    reported = [whole.fit(train, valid).predict_proba(valid.table, valid.rows)]
    for s in range(2):
        kept = belief_NS[:, s] >= 0.05
        own = train.take(kept)
        own = Samples(**{**vars(own), "weight": own.weight * belief_NS[kept, s]})
        reported.append(whole.fit(own, valid).predict_proba(valid.table, valid.rows))
    held_NS = done.regime_.predict_proba(valid.table, valid.rows)
    for s in range(2):
        share = n_S[s] / (n_S[s] + kappa)
        expected += held_NS[:, [s]] * (share * reported[1 + s] + (1 - share) * reported[0])
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), expected, rtol=0, atol=1e-12)
    assert done.earning()[1].sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize(("shrinkage", "least"), [(np.inf, 20.0), (10.0, 1e9)])
def test_without_trust_in_states_it_is_the_common_model_to_rounding(parts, shrinkage, least, caplog):
    train, valid = parts
    with caplog.at_level(logging.WARNING):
        done = RegimePooled(LINE, REGIME, shrinkage, least=least).fit(train, valid)
    common = LINE.fit(train, valid).predict_proba(valid.table, valid.rows)
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), common, rtol=0, atol=1e-12)
    assert (list(done.members_) == ["common"]) == (least > 1e6)
    assert ("state wild has too few" in caplog.text) == (least > 1e6)


def test_a_state_without_one_of_the_classes_takes_the_common_model(parts):
    train, valid = parts
    belief = REGIME.fit(train, valid).predict_proba(train.table, train.rows)
    tame = Samples(**{**vars(train), "y": np.where(belief[:, 1] >= 0.05, 0, train.y)})
    done = RegimePooled(LINE, REGIME, 10.0).fit(tame, valid)
    assert list(done.members_) == ["common", "in_calm"]
    np.testing.assert_array_equal(done.earning()[1][1], [1, 0])


def test_a_symbols_own_regime_may_stand_in_where_there_is_one_series(parts):
    train, valid = parts
    done = RegimePooled(LINE, HMM, 10.0).fit(train.take(train.table.symbol[train.rows] == 1), valid)
    assert done.regime_.names == ("calm", "wild")


def test_trees_stop_on_their_own_states_validation_rows_and_copies_have_their_folders(parts, tmp_path):
    train, valid = parts
    trees = LightGbm(n_estimators=40, early_stopping_rounds=5, n_threads=1)
    done = RegimePooled(trees, REGIME, 10.0).fit(train, valid)
    belief = done.regime_.predict_proba(valid.table, valid.rows)[:, 0]
    kept = belief >= 0.05
    own = valid.take(kept)
    own = Samples(**{**vars(own), "weight": own.weight * belief[kept]})
    belief_N = done.regime_.predict_proba(train.table, train.rows)[:, 0]
    seen = train.take(belief_N >= 0.05)
    seen = Samples(**{**vars(seen), "weight": seen.weight * belief_N[belief_N >= 0.05]})
    by_hand = trees.fit(seen, own)
    assert done.members_["in_calm"].booster_.model_to_string() == by_hand.booster_.model_to_string()
    FOLDERS.clear()
    RegimePooled(Noise(1.0), REGIME, 10.0, workdir=tmp_path).fit(train, valid)
    assert [tmp_path / name for name in ("common", "in_calm", "in_wild")] == FOLDERS
    assert RegimePooled(LightGbm(lookback=90), REGIME, 1.0).lookback == 90
    assert RegimePooled(LINE, REGIME, 1.0).lookback == REGIME.lookback


def test_a_nested_average_keeps_its_own_scaler(parts):
    train, valid = parts
    pool = Average(
        {"line": LINE, "trees": LightGbm(n_estimators=5, n_threads=1)}, RobustScaler(), {"line": 0.2, "trees": 0.8}
    )
    done = RegimePooled(pool, REGIME, 10.0).fit(train, valid)
    assert isinstance(done.members_["in_wild"].members_["line"], Scaled)
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows).sum(axis=1), 1)


def test_what_is_not_known_or_makes_no_sense_is_refused(parts):
    train, valid = parts
    with pytest.raises(TrainingError, match=r"shrinkage=-1\.0"):
        RegimePooled(LINE, REGIME, -1.0)
    with pytest.raises(TrainingError, match=r"set model.shrinkage or model\.least"):
        RegimePooled(LINE, REGIME, 1.0, least=0.0)
    table = train.table
    first = np.flatnonzero((table.symbol == 1) & (table.time < train.time.min()))[:10]
    early = Samples(
        table, np.concatenate([first, train.rows]), np.concatenate([np.arange(10) % 2, train.y]),
        np.ones(len(train) + 10), np.concatenate([first, train.start]), np.concatenate([first + 2, train.end]),
        np.zeros(len(train) + 10),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"10 of \d+ training rows lack the 15 rows that the regime reads"):
        RegimePooled(LINE, REGIME, 1.0).fit(early, valid)
    broken = train.table.values.copy()
    broken[train.rows[0], 0] = np.nan
    with pytest.raises(DataError, match="logistic: NaN"):
        RegimePooled(LINE, REGIME, 1.0).fit(train.on(train.table.with_values(broken)), valid)
    with pytest.raises(TrainingError, match="not fitted"):
        RegimePooled(LINE, REGIME, 1.0).predict_proba(valid.table, valid.rows)
