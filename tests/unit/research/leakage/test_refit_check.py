"""The check that really refits: silent on the package's own parts, loud on each planted leak."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tests.unit.research.panels_for_tests import bars_of, experiments_of
from tradsys.core.errors import DataError
from tradsys.core.tables import Labels
from tradsys.features.registry import register
from tradsys.labels.forward_return import ForwardReturn
from tradsys.market.universe import Members
from tradsys.models.transforms import RobustScaler
from tradsys.research.leakage import refit_check as module
from tradsys.research.leakage.refit_check import refit_check
from tradsys.research.panel.walk_forward import prepared_in_turn
from tradsys.research.pipeline.as_of import as_of_fold, known_by
from tradsys.research.pipeline.dataset import labels_of
from tradsys.samples.splits import WalkForward


@pytest.fixture(scope="module")
def experiments():
    return experiments_of(1, 5)


@pytest.fixture(scope="module")
def bars(experiments):
    return bars_of(experiments["1d"])


@pytest.fixture(scope="module")
def at(bars):
    return bars["time"].unique().sort()[500]


def test_the_package_says_the_same_to_the_bit(experiments, bars, at):
    assert refit_check(experiments, bars, at) == []


def test_it_really_refits_on_the_cut_data(experiments, bars, at, monkeypatch):
    seen, real = [], module.fitted_on

    def watched(experiment, train, valid):
        seen.append((train.table.time.max(), train.table.time[train.end].max(), len(train)))
        return real(experiment, train, valid)

    monkeypatch.setattr(module, "fitted_on", watched)
    refit_check({"1d": experiments["1d"]}, bars, at)
    whole, cut = seen
    now = np.datetime64(at.replace(tzinfo=None), "us")
    assert whole[0] > now  # the one side has the future at hand,
    assert cut[0] == now  # the other has not
    assert whole[1:] == cut[1:]
    assert whole[1] < now


@register
@dataclass(frozen=True)
class NextReturn:
    """A planted leak: tomorrow's return."""

    name: str = "ret_tomorrow"
    warmup: int = 1

    def expr(self) -> pl.Expr:
        return (pl.col("close").shift(-1) / pl.col("close")).log()


@register
@dataclass(frozen=True)
class WholeHistoryMean:
    """A planted leak that looks harmless: the distance from the mean of the whole history."""

    name: str = "above_its_mean"
    warmup: int = 1

    def expr(self) -> pl.Expr:
        return pl.col("close") / pl.col("close").fill_nan(None).mean()


@pytest.mark.parametrize("leak", [NextReturn(), WholeHistoryMean()])
def test_a_feature_that_knows_the_future_is_caught(leak, experiments, bars, at):
    e = experiments["1d"]
    (found,) = refit_check({"1d": replace(e, features=e.features.like([*e.features.features, leak]))}, bars, at)
    assert (found.part, found.column) == ("1d features", leak.name)
    assert found.size > 0


@dataclass(frozen=True)
class HindsightMembers:
    """A planted leak: members are those that ended above where they began."""

    def mask(self, bars):
        risen = pl.col("close").last().over("symbol") > pl.col("close").first().over("symbol")
        return bars.select((pl.col("symbol") != "MKT") & risen).to_series().to_numpy()


def test_a_universe_chosen_in_hindsight_is_caught(experiments, bars, at):
    (found,) = refit_check({"1d": replace(experiments["1d"], events=HindsightMembers())}, bars, at)
    assert found.part == "1d samples"


@dataclass(frozen=True)
class EarlyLabels(ForwardReturn):
    """A planted leak: a label that says it is known at the next bar and looks five ahead."""

    def card(self):
        return super().card() | {"kind": "EarlyLabels"}

    def label(self, bars, side=None):
        reported = super().label(bars, side)
        known = reported.end >= 0
        return Labels(reported.y, np.where(known, np.arange(len(reported)) + 1, -1), reported.ret, reported.weight)


def test_a_label_that_claims_to_be_known_too_early_is_caught(experiments, bars, at):
    (found,) = refit_check({"5d": replace(experiments["5d"], labels=EarlyLabels(horizon_bars=5))}, bars, at)
    assert (found.part, found.column) == ("5d labels", "y")


@dataclass(frozen=True)
class WholeScaler(RobustScaler):
    """A planted leak: a scaler that looks at the whole table."""

    def fit(self, table, rows):
        return super().fit(table, np.flatnonzero(np.isfinite(table.values).all(axis=1)))


def test_a_scaler_fitted_on_all_rows_is_caught_by_the_prediction_alone(experiments, bars, at):
    e = experiments["1d"]
    leaky = replace(e, transforms=WholeScaler(), model=replace(e.model, scaler=WholeScaler()))
    (found,) = refit_check({"1d": leaky}, bars, at)
    assert found.part == "1d prediction"
    assert 0 < found.size < 0.1
    assert refit_check({"1d": leaky}, bars, at, tolerance=0.5) == []


def test_a_fold_as_of_a_date_knows_no_later_label(experiments, bars, at):
    prepared = dict(prepared_in_turn({"5d": experiments["5d"]}, bars))["5d"]
    fold = as_of_fold(prepared.samples, at, 60)
    table, now = prepared.table, np.datetime64(at.replace(tzinfo=None), "us")
    valid, train = prepared.samples.take(fold.valid), prepared.samples.take(fold.train)
    assert len(np.unique(valid.time)) == 60
    assert table.time[valid.end].max() == now
    assert table.time[train.end].max() < table.time[valid.rows].min()
    labels = known_by(experiments["5d"], bars, labels_of(experiments["5d"], bars), at)
    assert table.time[labels.end[labels.end >= 0]].max() == now
    assert (labels.y[labels.end < 0] == -1).all()


def test_dates_that_cannot_be_asked_are_refused(experiments, bars):
    clock = bars["time"].unique().sort()
    with pytest.raises(DataError, match="0 bars lie after"):
        refit_check(experiments, bars, clock[-1])
    with pytest.raises(DataError, match="and 0 close then"):
        refit_check(experiments, bars, clock[500] + timedelta(hours=1))
    with pytest.raises(DataError, match="decision times have outcomes by"):
        refit_check(experiments, bars, clock[290])
    assert isinstance(experiments["1d"].events, Members)
    assert isinstance(experiments["1d"].split, WalkForward)
