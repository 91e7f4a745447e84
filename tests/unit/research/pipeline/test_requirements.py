"""Stages that lack what another needs are refused before anything is fitted."""

from types import SimpleNamespace

import numpy as np
import pytest

from tradsys.core.errors import CombinationError, TrainingError
from tradsys.research.pipeline.requirements import check_auditor_outcomes, check_stages
from tradsys.serving.strategy import AuditMask, Profile, RegimeMask, ThresholdRule


def experiment(masks=(), regime=None, auditor=None, kind="triple_barrier", strategies=True):
    profile = Profile(ThresholdRule(0.5, "score"), masks)
    return SimpleNamespace(
        strategy={"own": profile} if strategies else {},
        regime=regime,
        auditor=auditor,
        labels=SimpleNamespace(card=lambda: {"kind": kind}),
        evaluation=SimpleNamespace(candidate_quantile=0.5),
        costs=SimpleNamespace(log_round_trip=0.001),
    )


class Part:
    def __init__(self, n, n_paid):
        self.ret = np.where(np.arange(n) < n_paid, 0.01, -0.01)

    def __len__(self):
        return len(self.ret)


def test_a_regime_mask_without_a_regime_is_refused():
    with pytest.raises(CombinationError, match=r"'own' blocks regimes .'calm'. but regime is null; set regime=hmm"):
        check_stages(experiment([RegimeMask(["calm"])]))
    check_stages(experiment([RegimeMask(["calm"])], regime=object()))


def test_an_audit_mask_without_an_auditor_is_refused():
    with pytest.raises(CombinationError, match="auditor is null; set auditor=xgboost"):
        check_stages(experiment([AuditMask(0.5)]))
    check_stages(experiment([AuditMask(0.5)], auditor=object()))


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
