import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import iqr

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.tables import FeatureTable
from tradsys.models.transforms import RobustScaler


def make_table(values: np.ndarray) -> FeatureTable:
    n, k = values.shape
    time = np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(60, "m")
    codes = np.zeros(n, dtype=np.int32)
    return FeatureTable(codes, time, codes, values.astype(np.float32), tuple(f"f{i}" for i in range(k)), ("AAA",))


@pytest.fixture
def table() -> FeatureTable:
    rng = np.random.default_rng(0)
    values = rng.normal([5, -2, 0], [1, 10, 0.01], size=(400, 3))
    values[300:] += 50  # the rows after training live elsewhere
    return make_table(values)


def test_centre_and_scale_are_median_and_iqr_in_sigmas_of_the_given_rows(table):
    rows = np.arange(300)
    scaler = RobustScaler().fit(table, rows)
    x = table.values[rows].astype(np.float64)
    np.testing.assert_allclose(scaler.center_, np.median(x, axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaler.scale_, iqr(x, axis=0, scale="normal"), rtol=1e-5)
    assert scaler.center_.dtype == scaler.scale_.dtype == np.float32
    expected = np.clip((x - scaler.center_) / scaler.scale_, -5, 5)
    np.testing.assert_allclose(scaler.apply(table).values[rows], expected, atol=1e-5)


def test_rows_outside_the_training_rows_change_nothing_and_all_rows_would(table):
    rows = np.arange(300)
    other = make_table(np.vstack([table.values[:300], table.values[300:] * -7]))
    a, b = RobustScaler().fit(table, rows), RobustScaler().fit(other, rows)
    np.testing.assert_array_equal(a.center_, b.center_)
    np.testing.assert_array_equal(a.scale_, b.scale_)
    leaky = RobustScaler().fit(table, np.arange(400))
    assert np.abs(leaky.scale_ - a.scale_).max() > 0.01


def test_nan_is_skipped_in_fit_and_kept_in_apply(table):
    values = table.values.copy()
    values[10:40, 1] = np.nan
    scaler = RobustScaler().fit(make_table(values), np.arange(300))
    kept = np.delete(values[:300, 1], np.arange(10, 40))
    assert scaler.center_[1] == pytest.approx(np.median(kept))
    out = scaler.apply(make_table(values)).values
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))


def test_constant_column_takes_scale_one_and_a_rare_flag_its_standard_deviation():
    values = np.zeros((200, 3))
    values[:, 0] = 1234.5
    values[::20, 1] = 1.0
    values[:, 2] = np.arange(200)
    scaler = RobustScaler().fit(make_table(values), np.arange(200))
    assert scaler.scale_[0] == 1
    assert scaler.scale_[1] == pytest.approx(values[:, 1].std())
    assert np.isfinite(scaler.apply(make_table(values)).values).all()


def test_json_round_trip_is_exact(table):
    scaler = RobustScaler(clip=3.0, quantile=0.1).fit(table, np.arange(300))
    again = RobustScaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert (again.clip, again.quantile, again.names_) == (3.0, 0.1, table.names)
    np.testing.assert_array_equal(again.apply(table).values, scaler.apply(table).values)


def test_refusals_name_the_cause(table):
    with pytest.raises(TrainingError, match="not fitted"):
        RobustScaler().apply(table)
    with pytest.raises(DataError, match="f1"):
        RobustScaler().fit(make_table(np.full((9, 2), [1.0, np.nan])), np.arange(9))
    with pytest.raises(DataError, match="0 training rows"):
        RobustScaler().fit(table, np.arange(0))
    with pytest.raises(DataError, match="same order"):
        RobustScaler().fit(table, np.arange(300)).apply(table.select(["f1", "f0", "f2"]))
    with pytest.raises(DataError, match=r"quantile=0\.7"):
        RobustScaler(quantile=0.7)


def test_fit_leaves_the_original_unfitted(table):
    scaler = RobustScaler()
    assert scaler.fit(table, np.arange(300)) is not scaler
    assert scaler.center_ is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_scaled_values_do_not_depend_on_units(seed, unit, shift):
    x = np.random.default_rng(seed).standard_t(3, size=(60, 1))
    a, b = make_table(x), make_table(x * unit + shift)
    one, two = (RobustScaler().fit(t, np.arange(40)).apply(t).values for t in (a, b))
    # float32 holds the shifted numbers to about 6e-8 of their size
    np.testing.assert_allclose(one, two, atol=1e-3 + 1e-6 * (abs(shift) + unit) / unit)
