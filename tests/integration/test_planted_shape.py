"""A truth planted in the shape of a window: nets that read windows find it, a model of single rows does not."""

import numpy as np
import pytest

from tradsys.config.compose import build, compose
from tradsys.evidence.classification import evaluate
from tradsys.research.pipeline.cross_validation import run_fit
from tradsys.research.pipeline.dataset import build_dataset, load_bars
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.splits import Holdout

MARKET = [
    "data.edge=0",
    "data.n_bars=12000",
    "data.source.symbols=[SYN0,SYN1,SYN2,SYN3,SYN4,SYN5,SYN6,SYN7]",
    "features=single_bars",
    "events=clock",
    "events.every_hours=24",  # a decision at midnight: the shape is complete, the drift has not begun
    "labels.horizon_bars=8",
    "labels.upper=1.0",
    "labels.lower=1.0",
    "regime.lookback=24",
    "trainer.progress_bar=false",
]
NET = ["model.lookback=12", "model.net.d_model=16", "model.net.n_heads=2", "model.net.n_layers=1"]
NET += ["model.net.dropout=0.0", "model.net.pooling=mean", "model.net.causal=false", "model.module.lr=0.01"]
VARIANTS = {
    "logistic": ["model=logistic"],
    "transformer": ["model=transformer", *NET, "model.module.gamma=0", "model.batch_size=64", "trainer.max_epochs=12"],
    # the temperature of a noisy label: at 0.1 the loss chases single neighbours, most of whose labels are luck
    "supcon": [
        *["model=supcon", *NET, "model.batch_size=256", "model.module.temperature=0.5"],
        *["trainer.max_epochs=40", "trainer.patience=40"],
    ],
}


@pytest.fixture(scope="module")
def skill():
    """Skill of a variant against the base rate on the last quarter, with its 95 % interval, by (variant, shape)."""
    known = {}

    def of(variant: str, shape: float) -> dict[str, float]:
        if (variant, shape) not in known:
            experiment = Experiment.of(build(compose("train", [*MARKET, f"data.shape={shape}", *VARIANTS[variant]])))
            dataset = build_dataset(experiment, load_bars(experiment), Holdout(train_fraction=0.6, valid_fraction=0.15))
            fit = run_fit(experiment, dataset, fold=0, seed=1)
            known[variant, shape] = evaluate(fit.proba_NC, fit.y, fit.base_rate_C, time_N=fit.time, seed=0)[
                "skill_beyond_level"
            ]
        return known[variant, shape]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["transformer", "supcon"])
def test_a_net_over_windows_finds_the_shape(variant, skill):
    found = skill(variant, 1.0)
    assert found["low"] > 0.05, found


@pytest.mark.slow
def test_logistic_regression_on_single_rows_does_not(skill):
    blind = skill("logistic", 1.0)
    assert blind["low"] <= 0 <= blind["high"], blind
    assert np.abs(blind["value"]) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_without_a_shape_every_interval_covers_zero(variant, skill):
    nothing = skill(variant, 0.0)
    assert nothing["low"] <= 0 <= nothing["high"], nothing
