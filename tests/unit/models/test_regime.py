import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.regime import HmmRegime, _hmmlearn_messages

LOOKBACK = 30
HMM = HmmRegime(("ret", "vol"), lookback=LOOKBACK, n_seeds=2, max_iter=40)


def series(n: int, seed: int = 0) -> np.ndarray:
    """Calm, wilder, wildest stretches of 100 bars, over and over: (return, noisy log volatility)."""
    rng = np.random.default_rng(seed)
    sigma = np.array([0.001, 0.003, 0.01])[(np.arange(n) // 100) % 3]
    return np.stack([rng.normal(0, sigma), np.log(sigma) + rng.normal(0, 0.2, n)], axis=1)


def make_table(x: np.ndarray, segment: np.ndarray | None = None) -> FeatureTable:
    n = len(x)
    codes = np.zeros(n, dtype=np.int32)
    time = np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(5, "m")
    # a third column that the model must not read, not even its NaN
    values = np.column_stack([x, np.full(n, np.nan)]).astype(np.float32)
    return FeatureTable(codes, time, codes if segment is None else segment, values, ("ret", "vol", "other"), ("AAA",))


def make_samples(table: FeatureTable, rows: np.ndarray, lookback: int = LOOKBACK) -> Samples:
    zeros = np.zeros(len(rows))
    return Samples(table, rows, zeros.astype(np.int64), zeros + 1, rows - lookback + 1, rows, zeros)


def fit(x: np.ndarray, model: HmmRegime = HMM, rows: np.ndarray | None = None) -> HmmRegime:
    rows = np.arange(LOOKBACK - 1, len(x)) if rows is None else rows
    samples = make_samples(make_table(x), rows)
    return model.fit(samples, samples.take(np.arange(0)))


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return make_table(series(2400))


@pytest.fixture(scope="module")
def model(table) -> HmmRegime:
    return fit(table.values[:1500, :2])


def test_posteriors_sum_to_one_and_follow_the_planted_stretches(table, model):
    rows = np.arange(LOOKBACK - 1, 2400)
    proba = model.predict_proba(table, rows)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert (proba.argmax(axis=1) == (rows // 100) % 3).mean() > 0.95
    assert isinstance(model, Model)
    assert HMM.means_ is None


def test_changing_the_future_changes_no_bit(table, model):
    t = 1000
    wild = table.values[:, :2].copy()
    wild[t + 1 :] *= -50
    rows = np.arange(LOOKBACK - 1, t + 1)
    np.testing.assert_array_equal(model.predict_proba(table, rows), model.predict_proba(make_table(wild), rows))
    np.testing.assert_array_equal(model.filter(table.values[: t + 1, :2]), model.filter(wild)[: t + 1])


def test_rows_before_the_window_change_no_bit(table, model):
    wild = table.values[:, :2].copy()
    wild[: 1000 - LOOKBACK + 1] *= -50
    np.testing.assert_array_equal(
        model.predict_proba(table, np.array([1000])), model.predict_proba(make_table(wild), np.array([1000]))
    )


def test_one_row_alone_a_short_buffer_and_the_batch_agree_to_the_bit(table, model):
    rows = np.arange(LOOKBACK - 1, 2400)
    batch = model.predict_proba(table, rows)
    for row in (29, 30, 555, 2399):
        buffer = make_table(table.values[row - LOOKBACK + 1 : row + 1, :2])
        np.testing.assert_array_equal(model.predict_proba(table, np.array([row]))[0], batch[row - LOOKBACK + 1])
        np.testing.assert_array_equal(
            model.predict_proba(buffer, np.array([LOOKBACK - 1]))[0], batch[row - LOOKBACK + 1]
        )
        plain = model.filter(table.values[row - LOOKBACK + 1 : row + 1, :2])
        np.testing.assert_allclose(plain[-1], batch[row - LOOKBACK + 1], rtol=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(model.predict_proba(table, rows[shuffled]), batch[shuffled])


def test_windows_that_are_short_broken_or_span_two_segments_are_nan(table, model):
    x = table.values[:300, :2].copy()
    x[200, 1] = np.nan
    segment = np.repeat([0, 1], [100, 200]).astype(np.int32)
    proba = model.predict_proba(make_table(x, segment), np.arange(300))
    known = np.isfinite(proba).all(axis=1)
    expected = np.concatenate([np.arange(29, 100), np.arange(129, 200), np.arange(230, 300)])
    np.testing.assert_array_equal(np.flatnonzero(known), expected)
    assert np.isnan(proba[~known]).all()
    assert model.predict_proba(table, np.arange(0)).shape == (0, 3)


def test_filter_starts_again_from_the_prior_after_nan(table, model):
    x = table.values[:120, :2].astype(np.float64)
    x[60, 0] = np.nan
    ours = model.filter(x)
    assert np.isnan(ours[60]).all()
    np.testing.assert_array_equal(ours[61:], model.filter(x[61:]))
    np.testing.assert_array_equal(ours[:60], model.filter(x[:60]))


def test_fit_reads_the_training_windows_and_nothing_else(table, model):
    x = table.values[:, :2].copy()
    x[1500:] = 1e3
    rows = np.arange(LOOKBACK - 1, 1500)
    samples = make_samples(make_table(x), rows)
    again = HMM.fit(samples, make_samples(make_table(x), np.arange(1600, 2400)))
    np.testing.assert_array_equal(again.means_, model.means_)
    np.testing.assert_array_equal(again.center_, model.center_)
    leaky = fit(x)
    assert np.abs(leaky.center_ - model.center_).max() > 1
    # sparse decision rows still train on their whole windows, each row once
    sparse = HMM.fit(make_samples(table, np.arange(LOOKBACK - 1, 1500, LOOKBACK)), samples)
    assert sparse.n_rows_ == 1500
    np.testing.assert_array_equal(sparse.means_, model.means_)


def test_series_are_cut_where_rows_are_missing_or_segments_change(table):
    rows = np.concatenate([np.arange(29, 400), np.arange(600, 1500)])
    segment = np.repeat([0, 1], [1000, 1400]).astype(np.int32)
    cut = replace(table, segment=segment)
    x, fresh = HMM._training_rows(make_samples(cut, rows))
    # rows 0..399, then 571..1499, of which 1000 opens a segment
    assert len(x) == 400 + 929
    np.testing.assert_array_equal(np.flatnonzero(fresh), [0, 400, 400 + 1000 - 571])


def test_only_the_latest_rows_are_fitted(table):
    small = replace(HMM, max_rows=900)
    assert small.fit(make_samples(table, np.arange(29, 1500)), make_samples(table, np.arange(0))).n_rows_ == 900


def test_states_are_ordered_by_volatility_whatever_the_start(table, model):
    refits = [fit(table.values[:1500, :2], replace(HMM, seed=seed)) for seed in range(4)]
    for one in [model, *refits]:
        assert (np.diff(one.covars_[:, 0, 0]) > 0).all()
        # names survive: the same state is found under the same number
        np.testing.assert_allclose(one.means_, model.means_, atol=0.02)
    by_mean = fit(table.values[:1500, :2], replace(HMM, order_column="vol", order_by="mean"))
    np.testing.assert_allclose(by_mean.means_, model.means_, atol=0.02)
    upside_down = fit(table.values[:1500, :2] * [1, -1], replace(HMM, order_column="vol", order_by="mean"))
    assert (np.diff(upside_down.covars_[:, 0, 0]) < 0).all()


def test_units_of_the_columns_do_not_matter(table, model):
    # powers of two, so that float32 rounds alike
    x = table.values[:1500, :2] * np.array([1024, 0.125], dtype=np.float32)
    again = fit(x)
    np.testing.assert_allclose(again.transmat_, model.transmat_, atol=1e-6)
    np.testing.assert_allclose(again.filter(x), model.filter(table.values[:1500, :2]), atol=1e-6)


def test_more_starts_never_lower_the_likelihood(table):
    lone, many = (fit(table.values[:900, :2], replace(HMM, n_seeds=k)).loglik_ for k in (1, 4))
    assert many >= lone


def test_a_bar_far_outside_the_fit_leaves_a_probability(model, table):
    x = table.values[:60, :2].astype(np.float64)
    x[40] = [50.0, 40.0]
    posterior = model.filter(x)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert posterior[40].argmax() == 2


def test_json_round_trip_is_exact(table, model):
    again = HmmRegime.from_json(json.loads(json.dumps(model.to_json(), allow_nan=False)))
    rows = np.arange(29, 500)
    np.testing.assert_array_equal(again.predict_proba(table, rows), model.predict_proba(table, rows))
    assert (again.columns, again.names, again.lookback) == (model.columns, model.names, LOOKBACK)
    assert (again.loglik_, again.n_rows_) == (model.loglik_, model.n_rows_)


def test_refusals_name_the_cause(table):
    with pytest.raises(TrainingError, match="not fitted"):
        HMM.filter(series(10))
    with pytest.raises(DataError, match=r"\['vol'\] are constant"):
        fit(series(600) * [1, 0])
    with pytest.raises(DataError, match="120 are the least"):
        fit(series(60))
    with pytest.raises(DataError, match="one name per state"):
        HmmRegime(("ret",), n_states=2)
    with pytest.raises(DataError, match="order column"):
        HmmRegime(("ret",), order_column="vol")
    with pytest.raises(DataError, match="'vol'"):
        HMM.fit(make_samples(table.select(["ret"]), np.arange(29, 500)), make_samples(table, np.arange(0)))
    with pytest.raises(DataError, match=r"\[T, 2\]"):
        fit(series(600)).filter(np.zeros(5))


def test_states_without_rows_are_refused():
    # two point masses cannot feed three states
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 200, axis=0)
    with pytest.raises(TrainingError, match="none of 2 starts on 400 rows gave 3 states"):
        fit(x, replace(HMM, min_share=0.34))


def test_what_hmmlearn_logs_is_kept_for_the_message_and_its_logger_left_as_found():
    logger = logging.getLogger("hmmlearn")
    before = (list(logger.handlers), logger.propagate)
    with _hmmlearn_messages() as heard:
        logging.getLogger("hmmlearn.base").warning("Model is not converging. Current: %s", -1.5)
    assert heard == ["Model is not converging. Current: -1.5"]
    assert (list(logger.handlers), logger.propagate) == before
