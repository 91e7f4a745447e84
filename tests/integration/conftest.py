import contextlib
import os
import shutil
from pathlib import Path

import pytest

from tests.postgres import serving
from tradsys.config.compose import conf_folder

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
    "evaluation.n_placebos=20",
    "baselines.lightgbm.n_estimators=20",
    "auditor.n_estimators=20",
]

AVERAGES = ("transformer", "supcon")  # experiments whose model is the mean of five seeds

# an ensemble has no window or net of its own: its members are what shrinks
SHRUNK_MEMBERS = [
    "data.n_bars=3000",  # folds within folds: what the auditor holds out, the pool splits again
    "model.n_folds=2",
    "model.members.transformer.n_seeds=2",
    "model.members.transformer.model.lookback=8",
    "model.members.transformer.model.net.d_model=8",
    "model.members.transformer.model.net.n_heads=2",
    "model.members.lightgbm.n_estimators=20",
]


# daily panels: few names and sessions; the planted edge is what the reports say of the data
SHRUNK_DAILY = [
    "data=synthetic_daily",
    "data.n_symbols=12",
    "data.n_sessions=640",
    "data.edge=0.1",
    "split=daily",
    "split.valid_bars=80",
    "split.test_bars=120",
    "evaluation.n_draws=50",
    "evaluation.n_permutations=1",
    "evaluation.n_placebos=20",
]
SHRUNK_MODELS = {
    "foundry": ["model.members.lightgbm.n_estimators=20"],
    "panel": ["model.n_estimators=20", "model.min_child_samples=50"],
    "explosion": ["data.explosions=0.03", "labels.rise=0.2", "split.embargo_bars=10"],
}


def is_daily(experiment: str) -> bool:
    """Whether an experiment of conf/ asks a panel of members, day by day."""
    text = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text()
    return "override /events: members" in text


def shrunk(experiment: str) -> list[str]:
    """Overrides that make an experiment of conf/ small."""
    if is_daily(experiment):
        return [*SHRUNK_DAILY, *SHRUNK_MODELS.get(experiment, [])]
    if experiment in AVERAGES:
        return [
            "model.n_seeds=2",
            *(o.replace("model.", "model.model.") if o.startswith("model.") else o for o in SHRUNK),
        ]
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
    """One whole shrunk training run on the synthetic market; its working folder holds runs/ with the ledger.

    Tests add trials to that ledger; `ledger_of_run.db` beside runs/ is as the run left it.
    """
    from tradsys.train import work

    folder = tmp_path_factory.mktemp("lab")
    with inside(folder):
        work(SHRUNK)
    shutil.copy(folder / "runs" / "ledger.db", folder / "ledger_of_run.db")
    return folder / "runs" / "train" / "latest"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A lab with one published session, the last but one."""
    from tests.daily_lab import BEFORE, PANEL, daily, stored

    folder = tmp_path_factory.mktemp("daily")
    stored(folder, PANEL.bars())
    with inside(folder):
        daily("run", f"date={BEFORE}")
    return folder


@pytest.fixture
def lab(published, tmp_path):
    """A copy of that lab, to be spoilt."""
    folder = tmp_path / "lab"
    shutil.copytree(published, folder, symlinks=True)
    with inside(folder):
        yield folder


@pytest.fixture(scope="session")
def server():
    """URL prefix of a PostgreSQL server that trusts every local user."""
    with serving() as prefix:
        yield prefix


@pytest.fixture
def url(server, request):
    """A database of the test's own."""
    import psycopg

    name = f"ledger_{abs(hash(request.node.name)) % 10**9}"
    with psycopg.connect(server + "postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server + name
