import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.tables import FeatureTable
from tradsys.research.diagnosis.feature_coverage import CoverageRules, coverage_section, date_coverage

N_SYMBOLS, N_DATES = 6, 200


def table(**columns):
    """A panel of whole histories; each column is a [S, T] array."""
    rng = np.random.default_rng(0)
    columns = {"whole": rng.normal(size=(N_SYMBOLS, N_DATES)), **columns}
    time = np.datetime64("2021-01-01T21", "us") + np.arange(N_DATES) * np.timedelta64(1, "D")
    return FeatureTable(
        symbol=np.repeat(np.arange(N_SYMBOLS, dtype=np.int32), N_DATES),
        time=np.tile(time, N_SYMBOLS),
        segment=np.repeat(np.arange(N_SYMBOLS, dtype=np.int32), N_DATES),
        values=np.stack([c.ravel() for c in columns.values()], axis=1).astype(np.float32),
        names=tuple(columns),
        symbols=tuple(f"S{k}" for k in range(N_SYMBOLS)),
    )


def noise(seed=1):
    return np.random.default_rng(seed).normal(size=(N_SYMBOLS, N_DATES))


def found_in(column, rules=None, warmup=0, members=None):
    asked = table(asked=column)
    return date_coverage(asked, {"whole": 0, "asked": warmup}, members, rules or CoverageRules())


def test_a_whole_feature_has_nothing_wrong():
    found = found_in(noise())
    assert (found.findings, found.overall.tolist()) == ((), [1.0, 1.0])


@pytest.mark.parametrize("n_last", [1, 2, 15])
def test_a_feature_of_the_last_dates_only_fails(n_last):
    column = np.full((N_SYMBOLS, N_DATES), np.nan)
    column[:, -n_last:] = noise()[:, -n_last:]
    found = found_in(column)
    (finding,) = found.stops
    assert (finding.feature, finding.kind) == ("asked", "last dates only")
    assert f"on the {N_DATES - n_last} dates before" in finding.text
    assert found.overall[1] == pytest.approx(n_last / N_DATES)


def test_the_same_feature_filled_with_zeros_fails_too():
    column = np.zeros((N_SYMBOLS, N_DATES))
    column[:, -1] = noise()[:, -1]
    (finding,) = found_in(column).stops
    assert (finding.kind, finding.date) == ("frozen until the end", "2021-07-19")


def test_a_constant_is_reported_and_a_calendar_is_not():
    (finding,) = found_in(np.full((N_SYMBOLS, N_DATES), 3.0)).findings
    assert (finding.kind, finding.outcome) == ("constant", "warn")
    by_day = np.tile(np.arange(N_DATES) % 7.0, (N_SYMBOLS, 1))
    assert found_in(by_day).findings == ()


def test_a_feature_never_known_fails():
    (finding,) = found_in(np.full((N_SYMBOLS, N_DATES), np.nan)).stops
    assert finding.kind == "never known"


def test_a_late_start_is_reported():
    column = noise()
    column[:, :50] = np.nan
    (finding,) = found_in(column).findings
    assert (finding.kind, finding.outcome, finding.date) == ("starts late", "warn", "2021-02-20")


@pytest.mark.parametrize(
    ("first", "length", "outcome"), [(100, 1, "warn"), (100, 2, "warn"), (100, 3, "stop"), (100, 60, "stop"),
                                     (N_DATES - 1, 1, "stop"), (N_DATES - 30, 30, "stop")]
)  # fmt: skip
def test_a_sudden_drop(first, length, outcome):
    column = noise()
    column[: N_SYMBOLS - 1, first : first + length] = np.nan
    (finding,) = found_in(column).findings
    assert (finding.kind, finding.outcome) == ("sudden drop", outcome)
    assert f"({length} dates)" in finding.text
    assert "from 100% to 17%" in finding.text
    assert ("to the last date" in finding.text) is (first + length == N_DATES)


def test_a_drop_that_stays_never_looks_normal():
    """A median over the last 20 dates would forget the level before the drop after ten of them."""
    column = noise()
    column[:, 60:140] = np.nan
    (finding,) = found_in(column).stops
    assert "(80 dates)" in finding.text


def test_a_slow_decline_is_no_sudden_drop():
    column = noise()
    for k in range(2):
        column[k, 50 * (k + 1) :] = np.nan
    assert found_in(column).findings == ()


def test_warm_up_is_not_owed():
    column = noise()
    column[:, :30] = np.nan
    found = found_in(column, warmup=30)
    assert found.findings == ()
    assert np.isnan(found.share[:30, 1]).all()
    assert (found.share[30:, 1] == 1).all()


def test_rows_that_are_no_members_do_not_count():
    column = noise()
    column[0] = np.nan
    members = np.repeat(np.arange(N_SYMBOLS), N_DATES) > 0
    assert found_in(column, members=members).overall[1] == 1
    assert found_in(column).overall[1] == pytest.approx(5 / 6)


@given(holes=st.lists(st.tuples(st.integers(0, N_SYMBOLS - 1), st.integers(0, N_DATES - 1)), max_size=40))
def test_shares_are_counts(holes):
    column = noise()
    for symbol, date in holes:
        column[symbol, date] = np.nan
    found = found_in(column)
    assert np.array_equal(found.share[:, 1], np.isfinite(column).mean(axis=0))
    assert found.overall[1] == pytest.approx(np.isfinite(column).mean())


def test_the_heat_map_hides_no_single_date_and_puts_failures_first():
    column = noise()
    column[:, 77] = np.nan
    last = np.full((N_SYMBOLS, N_DATES), np.nan)
    last[:, -1] = 1.5
    asked = table(gap=column, last=last)
    found = date_coverage(asked, dict.fromkeys(asked.names, 0), None, CoverageRules())
    section = coverage_section(found, most_columns=10, recent_dates=5)
    assert section["names"] == ["last", "gap", "whole"]
    # twenty dates a run, of which one is empty: a mean would be pale
    assert section["share"][1] == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert section["recent_share"][0] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert section["share"][0] == [0.0] * 10


def test_a_frozen_column_is_as_loud_as_a_missing_one():
    zeros = np.zeros((N_SYMBOLS, N_DATES))
    zeros[:, -1] = noise()[:, -1]
    asked = table(zeros=zeros)
    section = coverage_section(
        date_coverage(asked, {"whole": 0, "zeros": 3}, None, CoverageRules()), most_columns=10, recent_dates=3
    )
    assert section["names"][0] == "zeros"
    assert section["share"][0] == [0.0] * 10
    assert section["recent_share"] == [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    assert section["overall"] == [1.0, 1.0]
