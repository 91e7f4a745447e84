"""Stages that lack what another needs are refused before anything is fitted."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.integration.conftest import SHRUNK
from tradsys.config.compose import as_dict, build, compose
from tradsys.core.errors import CombinationError, DataError, TrainingError
from tradsys.market.universe import Members
from tradsys.models.boosting import LightGbm
from tradsys.models.calibrators import Isotonic
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.ensembles.per_symbol import PerSymbol
from tradsys.models.ensembles.resampled import SequentialBootstrap
from tradsys.models.linear import LogisticRegression
from tradsys.models.market_regime import MarketRegime
from tradsys.models.regime import HmmRegime
from tradsys.research import experiment as flow
from tradsys.research.pipeline.bundle_export import check_bundled
from tradsys.research.pipeline.requirements import check_auditor_outcomes, check_fits, check_horizons, check_stages
from tradsys.research.pipeline.training import are_too_few
from tradsys.serving.strategy import (
    AuditMask,
    BreakEvenRule,
    BreakoutRule,
    ExpansionSizing,
    Profile,
    RegimeMask,
    ThresholdRule,
)


def experiment(masks=(), regime=None, auditor=None, kind="triple_barrier", strategies=True, names=(), classes=2):
    profile = Profile(ThresholdRule(0.5, "score"), masks)
    return SimpleNamespace(
        strategy={"own": profile} if strategies else {},
        regime=regime,
        auditor=auditor,
        model=None,
        events=None,
        calibration=None,
        features=SimpleNamespace(names=names),
        labels=SimpleNamespace(card=lambda: {"kind": kind, "classes": ["x"] * classes}, horizon_bars=24),
        evaluation=SimpleNamespace(
            candidate_quantile=0.5, n_oof_folds=2, cpcv=False, cpcv_groups=4, cpcv_test_groups=2
        ),
        costs=SimpleNamespace(log_round_trip=0.001),
    )


class Part:
    def __init__(self, n, n_paid):
        self.ret = np.where(np.arange(n) < n_paid, 0.01, -0.01)
        self.y = (self.ret > 0).astype(np.int64)

    def __len__(self):
        return len(self.ret)


def test_a_regime_mask_without_a_regime_is_refused():
    with pytest.raises(CombinationError, match=r"'own' blocks regimes .'calm'. but regime is null; set regime=hmm"):
        check_stages(experiment([RegimeMask(["calm"])]))
    check_stages(experiment([RegimeMask(["calm"])], regime=SimpleNamespace(names=("calm", "wild"))))


def test_an_audit_mask_without_an_auditor_is_refused():
    with pytest.raises(CombinationError, match="auditor is null; set auditor=xgboost"):
        check_stages(experiment([AuditMask(0.5)]))
    check_stages(experiment([AuditMask(0.5)], auditor=object()))


@pytest.mark.parametrize("embargo", [0, 4])
def test_a_label_that_knows_deaths_needs_an_embargo_as_long(embargo):
    asked = experiment()
    asked.labels.card = lambda: {"kind": "triple_barrier", "dead_after_bars": 5}
    asked.split = SimpleNamespace(embargo_bars=embargo)
    with pytest.raises(CombinationError, match=rf"dead_after_bars=5 but split.embargo_bars={embargo};.*embargo_bars=5"):
        check_stages(asked)
    asked.split.embargo_bars = 5
    check_stages(asked)


def test_a_label_without_exits_is_refused_with_strategies_only():
    with pytest.raises(CombinationError, match=r"'moonphase' has no exits.*set strategy=\[\] to evaluate"):
        check_stages(experiment(kind="moonphase"))
    check_stages(experiment(kind="moonphase", strategies=False))


@pytest.mark.parametrize(("train", "valid"), [((90, 40), (200, 90)), ((400, 0), (200, 90)), ((400, 90), (30, 9))])
def test_too_few_outcomes_for_the_auditor_are_refused(train, valid):
    with pytest.raises(TrainingError, match=r"auditor: at most .* it needs 50 of both outcomes"):
        check_auditor_outcomes(experiment(auditor=object()), Part(*train), Part(*valid))
    check_auditor_outcomes(experiment(), Part(*train), Part(*valid))


def test_enough_outcomes_pass():
    check_auditor_outcomes(experiment(auditor=object()), Part(120, 30), Part(60, 20))


@pytest.mark.parametrize(
    ("rule", "kind", "names", "refusal"),
    [
        (BreakoutRule(0.8, "quantile"), "forward_return", (), "'own': a BreakoutRule needs .* without a side"),
        (BreakoutRule(0.8, "quantile"), "expansion", (), "without a side"),
        (BreakEvenRule(), "explosion", (), "ends positions only by time"),
        (BreakEvenRule(), "expansion", ("side",), "use strategy=.breakout."),
        (ThresholdRule(0.5, "score", short=True), "explosion", (), "use rule.short=false"),
        (ThresholdRule(0.5, "score", short=True), "triple_barrier", ("side",), "that predicts sides itself"),
        (ThresholdRule(0.9999, "quantile"), "triple_barrier", (), "quantile 0.9999 of 1001 validation scores"),
    ],
)
def test_what_a_rule_would_refuse_after_the_fit_is_refused_before_it(rule, kind, names, refusal):
    wanted = experiment(kind=kind, names=names)
    wanted.strategy = {"own": Profile(rule)}
    with pytest.raises(CombinationError, match=refusal):
        check_stages(wanted)


def test_a_sizing_by_expansion_is_refused_for_another_label():
    wanted = experiment()
    wanted.strategy = {"own": Profile(ThresholdRule(0.5, "score"), sizing=ExpansionSizing(0.5))}
    with pytest.raises(CombinationError, match=r"'own': an ExpansionSizing needs P\(expansion\)"):
        check_stages(wanted)


def test_a_class_1_that_is_no_profit_of_the_position_is_refused_with_strategies_only():
    """Of three classes it is the timeout, of a short's label the fall: strategies would buy on either."""
    with pytest.raises(
        CombinationError, match=r"3 classes, and strategies read P\(class 1\) as the chance of a profit"
    ):
        check_stages(experiment(classes=3))
    check_stages(experiment(classes=3, strategies=False))
    for allowed in (experiment(strategies=False), experiment(names=("side",)), experiment()):
        allowed.labels.side = 1 if allowed.strategy and not allowed.features.names else -1
        check_stages(allowed)
    short = experiment()
    short.labels.side = -1
    with pytest.raises(CombinationError, match=r"labels.side=-1 is the outcome of a short"):
        check_stages(short)


def test_isotonic_calibration_of_three_classes_is_refused():
    wanted = experiment(classes=3, strategies=False)
    check_stages(wanted)
    wanted.calibration = Isotonic()
    with pytest.raises(CombinationError, match="maps two classes, and the label has 3; set calibration=temperature"):
        check_stages(wanted)


def test_horizons_of_a_training_run_are_refused_unless_a_panel_reads_them():
    panel = experiment()
    panel.events = Members()
    check_horizons(panel, [5, 24])
    check_horizons(experiment(), [])
    for wanted, horizons in ((panel, [5, 20]), (experiment(), [24])):
        with pytest.raises(CombinationError, match=r"horizons=\[.*label, of 24 bars; set labels.horizon_bars="):
            check_horizons(wanted, horizons)


def test_columns_of_a_regime_that_the_features_lack_are_refused_before_any_fit():
    wanted = experiment()
    filters = HmmRegime(columns=("ret_1", "vol_24"), n_states=2, names=("calm", "wild"))
    train = Part(120, 30)
    train.table = SimpleNamespace(names=("ret_1", "rsi_14"))
    for place, part in (("regime", filters), ("regime", MarketRegime(filters, "SPY")), ("model", {"m": filters})):
        setattr(wanted, place, part)
        with pytest.raises(CombinationError, match=rf"{place} reads the columns \['vol_24'\]"):
            check_fits(wanted, train, train, train)
        setattr(wanted, place, None)
    check_fits(wanted, train, train, train)


def test_folds_that_would_be_empty_are_refused_before_any_fit(monkeypatch):
    wanted = experiment(auditor=object())
    train = Part(120, 30)
    train.table = SimpleNamespace(names=())

    def split(_folds, _samples):
        yield None
        raise DataError("split: PurgedKFold fold 1 has no training samples")

    monkeypatch.setattr("tradsys.samples.splits.PurgedKFold.split", split)
    with pytest.raises(DataError, match="fold 1 has no training samples"):
        check_fits(wanted, train, train, train)
    wanted.auditor, wanted.evaluation.cpcv = None, True
    monkeypatch.setattr("tradsys.samples.splits.CombinatorialPurged.split", split)
    with pytest.raises(DataError, match="fold 1 has no training samples"):
        check_fits(wanted, train, train, train)


def test_a_model_that_no_bundle_can_hold_is_refused_before_it_is_fitted():
    line = LogisticRegression()
    check_bundled(Average({"a": line, "b": SeedAverage(SequentialBootstrap(LightGbm()), 2)}))
    with pytest.raises(CombinationError, match="no bundle can hold a PerSymbol"):
        check_bundled(Average({"a": line, "b": PerSymbol(line)}))


@pytest.mark.parametrize(("n", "paid", "few"), [(60, 30, False), (49, 20, True), (60, 0, True), (60, 60, True)])
def test_candidates_of_one_outcome_are_as_little_use_as_few(n, paid, few):
    assert bool(are_too_few(Part(n, paid))) is few


def test_too_few_test_rows_for_the_evaluation_are_refused_before_any_fit(tmp_path, monkeypatch):
    config = compose("train", [*SHRUNK, "split.train_fraction=0.84"])
    monkeypatch.setattr(flow, "fit", lambda *_args: pytest.fail("it was fitted"))
    with pytest.raises(DataError, match=r"drift: 28\d\d training and \d\d test rows for 5 blocks"):
        flow.run(flow.Experiment.of(build(config)), tmp_path, as_dict(config))
