import contextlib
import os
from pathlib import Path

import pytest

SHRUNK = [
    "data=synthetic",
    "data.n_bars=1600",
    "split=holdout",
    "model.lookback=8",
    "model.net.d_model=8",
    "model.net.n_heads=2",
    "model.net.n_layers=1",
    "trainer.max_epochs=1",
    "trainer.progress_bar=false",
    "regime.lookback=48",
    "regime.n_seeds=2",
    "regime.max_iter=10",
    "evaluation.n_draws=50",
    "evaluation.n_oof_folds=2",
    "evaluation.n_permutations=1",
    "baselines.lightgbm.n_estimators=20",
    "auditor.n_estimators=20",
]

# an ensemble has no window or net of its own: its members are what shrinks
SHRUNK_MEMBERS = [
    "data.n_bars=3000",  # folds within folds: what the auditor holds out, the pool splits again
    "model.n_folds=2",
    "model.members.transformer.lookback=8",
    "model.members.transformer.net.d_model=8",
    "model.members.transformer.net.n_heads=2",
    "model.members.lightgbm.n_estimators=20",
]


def shrunk(experiment: str) -> list[str]:
    """Overrides that make an experiment of conf/ small."""
    if experiment != "ensemble":
        return SHRUNK
    return [o for o in SHRUNK if not o.startswith("model.")] + SHRUNK_MEMBERS


@contextlib.contextmanager
def inside(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """One whole shrunk training run on the synthetic market; its working folder holds runs/ with the ledger."""
    from tradsys.train import work

    folder = tmp_path_factory.mktemp("lab")
    with inside(folder):
        work(SHRUNK)
    return folder / "runs" / "train" / "latest"
