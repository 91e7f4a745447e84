import numpy as np
import pytest
from scipy.signal import lfilter

from tradsys.core.errors import DataError
from tradsys.evidence.controls.drift import adversarial_validation

NAMES = tuple(f"f{i}" for i in range(6))


def make_rows(seed, n=3000):
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def test_rows_of_one_market_cannot_be_distinguished():
    drifts = [adversarial_validation(make_rows(s), make_rows(100 + s, 1500), NAMES, seed=s) for s in range(8)]
    assert all(abs(d.auc - 0.5) < 0.04 for d in drifts)
    assert sum(d.interval[0] <= 0.5 <= d.interval[1] for d in drifts) >= 6
    assert all(d.interval[0] <= d.auc <= d.interval[1] for d in drifts)


def test_slow_features_of_one_market_are_not_called_drift():
    # AR(1) with a memory of 50 rows: shuffled folds would place a row by its neighbours
    def slow(seed):
        return lfilter([1], [1, -0.98], make_rows(seed, 6000), axis=0)[1000:]

    aucs = [adversarial_validation(slow(s), slow(100 + s), NAMES, seed=s).auc for s in range(4)]
    assert abs(np.mean(aucs) - 0.5) < 0.1


def test_a_planted_shift_is_found_and_named():
    train, test = make_rows(1), make_rows(2)
    test[:, 3] += 1.0
    drift = adversarial_validation(train, test, NAMES)
    assert drift.interval[0] > 0.5
    # two unit normals one apart: AUC = Phi(1 / sqrt 2) = 0.760
    assert drift.auc == pytest.approx(0.760, abs=0.03)
    assert drift.importances[0][0] == "f3"
    assert drift.importances[0][1] > 0.6
    assert sum(share for _, share in drift.importances) == pytest.approx(1.0)


def test_a_change_of_scale_alone_is_found():
    train, test = make_rows(1), make_rows(2)
    test[:, 5] *= 2.0
    drift = adversarial_validation(train, test, NAMES)
    assert drift.interval[0] > 0.5
    assert drift.importances[0][0] == "f5"


def test_a_column_that_goes_missing_is_found():
    train, test = make_rows(1), make_rows(2)
    test[::2, 2] = np.nan
    drift = adversarial_validation(train, test, NAMES)
    assert drift.interval[0] > 0.5
    assert drift.importances[0][0] == "f2"


def test_constant_columns_carry_nothing():
    train, test = np.ones((200, 6)), np.ones((200, 6))
    drift = adversarial_validation(train, test, NAMES)
    assert drift.auc == 0.5
    assert [share for _, share in drift.importances] == [0.0] * 6


def test_same_seed_same_answer_and_thinning_keeps_the_shift():
    train, test = make_rows(1, 9000), make_rows(2, 9000)
    test[:, 0] += 1.0
    a = adversarial_validation(train, test, NAMES, seed=4, max_rows=1000)
    assert a == adversarial_validation(train, test, NAMES, seed=4, max_rows=1000)
    assert a.interval[0] > 0.5


def test_misfits_are_refused():
    with pytest.raises(DataError, match=r"train \(3000, 6\), test \(3000, 5\), 6 names"):
        adversarial_validation(make_rows(0), make_rows(1)[:, :5], NAMES)
    with pytest.raises(DataError, match="3000 training and 60 test rows for 5 blocks"):
        adversarial_validation(make_rows(0), make_rows(1, 60), NAMES)
    with pytest.raises(ValueError, match="n_folds=1"):
        adversarial_validation(make_rows(0), make_rows(1), NAMES, n_folds=1)
