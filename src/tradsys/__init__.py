"""Deep-learning research for trading that prints no number better than the truth.

From bars to a verdict, in the order of the work; `help(tradsys.NAME)` tells each one's arguments, shapes and units.

    bars        BarStore, StoredBars, SyntheticMarket, SyntheticPanel
    features    FeatureSet (fit, table)
    labels      TripleBarrier, ForwardReturn
    samples     make_samples, Holdout, PurgedKFold, WalkForward, CombinatorialPurged, average_uniqueness
    models      BaseRate, LogisticRegression, LightGbm, Xgboost, SequenceModel, Scaled, Calibrated,
                SeedAverage, HmmRegime
    serving     Bundle (load, predict), Strategy (targets), Profile, ThresholdRule, Session
    portfolio   Costs, simulate
    evidence    evaluate, sharpe_intervals, deflated_sharpe_ratio, probabilistic_sharpe_ratio, pbo

The same objects carry training, backtest, daily runs and live trading. On a command line: `python -m tradsys`.
Nothing is imported before its name is used, so `import tradsys` costs milliseconds.
"""

import importlib
from typing import Any

from tradsys.core.endings import early

if early.is_becoming_command():
    early.open_closed_streams()
    early.leave_when_stopped()

__version__ = "0.3.0"

_HOME = {
    "BarStore": "market.store",
    "StoredBars": "market.store",
    "SyntheticMarket": "market.synthetic",
    "SyntheticPanel": "market.synthetic_panel",
    "FeatureSet": "features.feature_set",
    "TripleBarrier": "labels.triple_barrier",
    "ForwardReturn": "labels.forward_return",
    "make_samples": "samples.join",
    "Holdout": "samples.splits",
    "PurgedKFold": "samples.splits",
    "WalkForward": "samples.splits",
    "CombinatorialPurged": "samples.splits",
    "average_uniqueness": "samples.weights",
    "BaseRate": "models.baseline",
    "LogisticRegression": "models.linear",
    "LightGbm": "models.boosting",
    "Xgboost": "models.boosting",
    "SequenceModel": "models.sequence",
    "Scaled": "models.ensembles.compose",
    "Calibrated": "models.ensembles.compose",
    "SeedAverage": "models.ensembles.compose",
    "HmmRegime": "models.regime",
    "Bundle": "serving.bundle",
    "Strategy": "serving.strategy",
    "Profile": "serving.strategy",
    "ThresholdRule": "serving.strategy",
    "Session": "serving.session",
    "Costs": "portfolio.costs",
    "simulate": "portfolio.simulator",
    "evaluate": "evidence.classification",
    "sharpe_intervals": "evidence.cosines",
    "deflated_sharpe_ratio": "evidence.sharpe",
    "probabilistic_sharpe_ratio": "evidence.sharpe",
    "pbo": "evidence.overfitting",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"tradsys has no public name {name!r}; help(tradsys) lists them")
    value = getattr(importlib.import_module(f"tradsys.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
