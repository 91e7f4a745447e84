import re
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.reports.sample_report import N_DAYS, sample_report
from tradsys.reports import equity_chart, interval_plot, style
from tradsys.reports.diagnosis import charts as diagnosis_charts
from tradsys.reports.run import model_charts, strategy_charts, time_charts
from tradsys.reports.sweep import charts as sweep_charts


@pytest.fixture(scope="module")
def report():
    return sample_report()


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 50))
def test_thinning_keeps_ends_and_extremes_in_order(values, most):
    kept = style.thinned(values, most)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert len(kept) <= max(most + 2, 1)
    assert min(values[i] for i in kept) == min(values)
    assert max(values[i] for i in kept) == max(values)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_drawdowns_agree_with_numpy(curve):
    expected = np.array(curve) / np.maximum.accumulate(curve) - 1
    np.testing.assert_allclose(equity_chart.drawdowns(curve), expected)


@pytest.mark.parametrize(("falls", "low"), [([0.0, 0.0], -0.01), ([0.0, -0.002], -0.01), ([0.0, -0.4], -0.42)])
def test_an_axis_of_drawdowns_ends_at_the_peak_even_where_nothing_was_lost(falls, low):
    assert equity_chart.drawdown_range(falls) == pytest.approx([low, 0.0])


def test_equity_starts_at_one_on_the_eve_so_that_a_first_day_loss_shows(report):
    report = sample_report()
    report["equity"]["curves"]["busy"][0] = 0.9
    equity, below = named(equity_chart.equity_and_drawdown(report), "busy")
    assert (equity.x[0], equity.y[0]) == ("2022-12-31", 1.0)
    assert (below.x[1], below.y[1]) == ("2023-01-01", pytest.approx(-0.1))
    assert len(equity.y) == N_DAYS + 1


def test_an_idle_curve_is_named_so(report):
    names = {trace.name for trace in equity_chart.equity_and_drawdown(report).data}
    assert names == {"AAA", "busy", "sniper (never traded)", "buy and hold"}


def test_equity_is_logarithmic_only_where_curves_spread_far_and_stay_positive(report):
    assert equity_chart.equity_and_drawdown(report).layout.yaxis.type == "linear"
    far = sample_report()
    far["equity"]["curves"]["busy"][-1] = 50.0
    assert equity_chart.equity_and_drawdown(far).layout.yaxis.type == "log"
    far["equity"]["curves"]["busy"][-1] = 0.0
    assert equity_chart.equity_and_drawdown(far).layout.yaxis.type == "linear"


@pytest.mark.parametrize(("values", "step"), [([0.16, 0.39], "D1"), ([1.0, 60.0], "D2"), ([1.0, 2e4], 1)])
def test_a_tick_of_a_logarithmic_axis_is_a_whole_number_and_never_its_first_digit(values, step):
    scale = style.log_scale(values)
    assert (scale["type"], scale["dtick"], scale["tickformat"]) == ("log", step, "~g")


def test_no_figure_makes_a_logarithmic_axis_of_its_own():
    own = re.compile(r"""type["']?\s*[=:]\s*["']log["']""")
    folder = Path(style.__file__).parent
    assert [p.name for p in folder.rglob("*.py") if own.search(p.read_text())] == ["style.py"]


def test_the_axis_of_a_live_record_ends_where_its_lines_do(report):
    report = sample_report()
    low, high = [-0.5, 0.2, 0.4], [1.3, 1.1, 0.9]
    live = {
        "sharpe": 1.0,
        "periods": 70,
        "periods_per_year": 365.0,
        "n": [60, 80, 100],
        "low": low,
        "no_edge_high": high,
    }
    for row in report["strategies"]:
        row["verdict"]["live"] = live
    axis = strategy_charts.live_records(report).layout.yaxis
    assert -1 < axis.range[0] < -0.5
    assert 1.3 < axis.range[1] < 2


def test_a_near_miss_is_never_rounded_up_to_what_it_missed():
    assert diagnosis_charts._rise({"best_rise": 0.49996}) == "  +49.9 %"
    assert diagnosis_charts._rise({"best_rise": 0.5}) == "  +50.0 %"


def test_all_trials_of_a_small_sweep_are_inside_the_axis():
    values = [-0.03, -0.028, -0.02, -0.012, 0.001]
    low, high = sweep_charts._visible(values)
    assert low < min(values) < max(values) < high
    assert sweep_charts._visible([-1.0, *[0.01 * k for k in range(20)]])[0] > -0.5


def test_a_sharpe_without_interval_is_hollow_and_an_unknown_one_is_words():
    estimates = {
        "bounded": {"value": 1.0, "low": 0.5, "high": 1.5, "reason": None},
        "bare": {"value": 2.0, "low": None, "high": None, "reason": "too short"},
        "unknown": {"value": None, "low": None, "high": None, "reason": "it never traded"},
    }
    figure = interval_plot.forest(estimates, "Sharpe", 2)
    bounded, bare = figure.data
    assert bounded.error_x.array == (0.5,)
    assert not bounded.marker.symbol.endswith("-open")
    assert bare.error_x.array is None
    assert bare.marker.symbol.endswith("-open")
    assert bare.text.strip() == "no interval"
    assert bare.textposition == "middle left"  # at the end of the axis words would leave the page
    assert [a.text for a in figure.layout.annotations] == ["n/a: it never traded"]
    low, high = figure.layout.xaxis.range
    assert low < 0
    assert high > 2.0


def test_the_line_of_luck_stands_at_the_expected_best_of_all_trials(report):
    figure = strategy_charts.sharpe_ratios(report)
    luck = report["benchmark"]["performance"]["expected_max_sharpe"]
    assert luck in [shape.x0 for shape in figure.layout.shapes]
    assert f"best of 3 trials by luck: {luck:.2f}" in [a.text for a in figure.layout.annotations]


def test_reliability_shows_each_interval_and_fits_the_forecasts(report):
    figure = model_charts.reliability_diagram(report)
    points = next(t for t in named(figure, "primary") if t.type == "scatter")
    bins = report["reliability"]["primary"]
    np.testing.assert_allclose(np.add(points.y, points.error_y.array), [b["observed_high"] for b in bins])
    np.testing.assert_allclose(np.subtract(points.y, points.error_y.arrayminus), [b["observed_low"] for b in bins])
    low, high = figure.layout.xaxis.range
    assert all(low < b["mean_predicted"] < high for b in bins)
    near = [{"mean_predicted": p, "observed": p, "observed_low": p - 0.01, "observed_high": p + 0.01, "n": 500}
            for p in (0.48, 0.52)]  # fmt: skip
    lone = {"mean_predicted": 0.5, "observed": 0.5, "observed_low": 0.0, "observed_high": 1.0, "n": 1}
    figure = model_charts.reliability_diagram({"reliability": {"primary": [near[0], lone, near[1]]}})
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert 0.44 < axis.range[0] < 0.48
        assert 0.52 < axis.range[1] < 0.56
    figure = model_charts.reliability_diagram(report)
    counts = next(t for t in named(figure, "primary") if t.type == "bar")
    assert sum(counts.y) == 400


def test_importance_is_pale_where_zero_is_within_the_range(report):
    bars = model_charts.importance(report).data[0]
    shown = report["importance"]["permutation"][: model_charts.N_SHOWN][::-1]
    assert list(bars.marker.opacity) == [1.0 if row["low"] > 0 else model_charts.PALE for row in shown]
    assert {1.0, model_charts.PALE} == set(bars.marker.opacity)


def test_importance_of_a_single_repeat_is_all_pale_without_whiskers():
    report = sample_report()
    for row in report["importance"]["permutation"]:
        row["low"] = row["high"] = row["value"]
    bars = model_charts.importance(report).data[0]
    assert set(bars.marker.opacity) == {model_charts.PALE}
    assert bars.error_x.visible is False


def test_importance_without_an_auditor_has_one_panel():
    report = sample_report()
    report["importance"]["auditor_gain"] = []
    assert len(model_charts.importance(report).data) == 1


states = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 1, 1, 3, 100])), min_size=1, max_size=60)


@given(states)
def test_bands_tell_every_bar_its_state_and_cross_no_hole(steps):
    moments = np.cumsum([0, *(hours for _, hours in steps[:-1])])
    time = [datetime(2024, 1, 1) + timedelta(hours=int(h)) for h in moments]
    state = [s for s, _ in steps]
    bands = time_charts.regime_bands(time, state)
    for now, s in zip(time, state, strict=True):
        assert [band[2] for band in bands if band[0] <= now < band[1]] == [s]
    usual = np.median(np.diff(time)) if len(time) > 1 else timedelta(hours=1)
    for (_, end, _), (start, _, _) in pairwise(bands):
        assert end <= start
    for before, after in pairwise(time):
        middle = before + (after - before) / 2
        if after - before > time_charts.GAP_STEPS * usual:
            assert not [band for band in bands if band[0] <= middle < band[1]]


def test_the_price_line_breaks_in_a_hole(report):
    line = named(time_charts.regime_ribbon(report), "AAA close")[0]
    assert [k for k, value in enumerate(line.y) if value is None] == [150]
    assert len(line.y) == 301


def test_the_ribbon_takes_any_number_of_states():
    report = sample_report()
    report["regime"]["names"] = [f"s{k}" for k in range(7)]
    report["regime"]["state"] = [k % 7 for k in range(300)]
    bands = [t for t in time_charts.regime_ribbon(report).data if t.type == "bar"]
    assert len({t.marker.color for t in bands}) == 7


def test_the_ribbon_marks_where_the_test_starts(report):
    shapes = time_charts.regime_ribbon(report).layout.shapes
    assert [shape.x0 for shape in shapes] == [datetime(2022, 2, 1)]


def test_purge_gaps_reach_from_the_last_decision_to_the_next_parts_first(report):
    gaps = named(time_charts.fold_timeline(report), "purge gap")
    day = 24 * 3600 * 1000
    assert [list(trace.x) for trace in gaps] == [[4 * day, 4 * day], [4 * day, 4 * day]]
    for trace, before in zip(gaps, ("train", "valid"), strict=True):
        ends = [datetime.fromisoformat(f[before]["decisions"][1]).replace(tzinfo=None) for f in report["folds"]]
        assert list(trace.base) == ends
        assert list(trace.y) == ["fold 1", "fold 2"]
        assert trace.marker.pattern.shape == "/"


def test_decisions_carry_their_counts(report):
    assert list(named(time_charts.fold_timeline(report), "train")[0].text) == ["train: 4,800", "train: 4,800"]


def test_labels_are_text_and_no_markup():
    assert style.plain("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"


def test_first_colours_differ_and_later_ones_differ_in_dash():
    looks = [(style.line(k)["color"], style.line(k)["dash"]) for k in range(18)]
    assert len(set(looks)) == 18


def test_a_band_is_one_closed_shape_a_stretch_and_nothing_in_a_gap():
    area = style.band([1, 2, 3, 4, 5], [0.0, 0.1, None, 0.3, 0.4], [1.0, 1.1, 1.2, 1.3, float("nan")])
    assert area.x == (1, 2, 2, 1, None, 4, 4)
    assert area.y == (0.0, 0.1, 1.1, 1.0, None, 0.3, 1.3)
    assert style.band([1], [None], [1.0]).x == ()
