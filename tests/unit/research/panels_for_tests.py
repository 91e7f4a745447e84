"""A small synthetic panel and the daily experiment of conf/ on it, for tests of what reads panels."""

from tradsys.config.compose import build, compose
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.pipeline.settings import Experiment

SMALL = [
    "+experiment=foundry",
    "data=synthetic_daily",
    "data.n_symbols=30",
    "data.n_sessions=700",
    "data.edge=0.3",
    "split=daily_years",
    "split.valid_bars=60",
    "split.test_bars=60",
    "model.members.lightgbm.n_estimators=20",
    "evaluation.n_draws=100",
]


def experiments_of(*horizons, more=()):
    """Experiments by horizon, such as `5d`, as a command composes them."""
    return {
        f"{h}d": Experiment.of(build(compose("train", [*SMALL, *more, f"labels.horizon_bars={h}"]))) for h in horizons
    }


def bars_of(experiment):
    """The experiment's bars with their segments."""
    return load_bars(experiment)
