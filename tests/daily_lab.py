"""A small daily panel with a planted edge, its configuration, and daily runs on it."""

import shutil
from pathlib import Path

import polars as pl

from tradsys.daily import work
from tradsys.market.calendars import session_date
from tradsys.market.store import BarStore
from tradsys.market.synthetic_panel import SyntheticPanel
from tradsys.ops.daily.event_log import RunLog

PANEL = SyntheticPanel(n_symbols=24, n_sessions=720, edge=0.4, deaths=0.0, late=0.0, seed=3)
SHRUNK = [
    "data=us_daily",
    "data.market_symbol=MKT",
    "data.source.start=null",
    "data.source.end=null",
    "evaluation.n_draws=20",
    "model.members.lightgbm.n_estimators=15",
    "split.valid_bars=60",
    "split.test_bars=120",
    "horizons=[1,5]",
    "gates.rules.training_rows.stop_below=500",
    "gates.rules.auc.stop_below=0.5",
    "retrain_every=3",
    "plan.n=5",
    "plan.rank_by=1d",
]
NAME = Path("runs/daily/foundry")
SESSIONS = sorted(PANEL.bars().select(session_date().unique()).to_series().to_list())
DAY, BEFORE, EARLIER = SESSIONS[-1], SESSIONS[-2], SESSIONS[-3]


def stored(folder: Path, bars: pl.DataFrame) -> None:
    shutil.rmtree(folder / "data" / "us_daily", ignore_errors=True)
    BarStore(folder / "data").write("us_daily", bars, {"source": "test", "bar_minutes": 1440})


def daily(verb: str, *overrides: str) -> None:
    work([verb, *SHRUNK, *overrides])


def events(folder: Path, **wanted) -> list[dict]:
    return RunLog(folder / NAME).lines(**wanted)
