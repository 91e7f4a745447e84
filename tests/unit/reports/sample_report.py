"""A report as a run leaves it, small, its numbers made by the very functions that make a run's."""

import copy
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from tests.unit.reports import sample_embedding, sample_honesty, sample_tear_sheet
from tradsys.evidence.calibration import reliability
from tradsys.evidence.classification import evaluate
from tradsys.evidence.joint_test import Batch, joint_test
from tradsys.evidence.performance import performance
from tradsys.evidence.sequential import live_record
from tradsys.evidence.verdict import verdict_of_run, verdict_of_strategy

N_DAYS = 400
START = date(2023, 1, 1)
TRAINING_SECTIONS = (
    "models", "ensemble", "reliability", "auditor", "audit_value", "importance", "drift", "folds", "regime",
    "hindsight", "paths", "embedding", "timings",
)  # fmt: skip


def sample_report(*, synthetic: bool = True, idle: bool = False, symbol: str = "AAA") -> dict[str, Any]:
    """A training run's report. idle: no strategy ever trades. symbol: the name in every place a name can be."""
    return copy.deepcopy(_made(synthetic, idle, symbol))


@cache
def _made(synthetic: bool, idle: bool, symbol: str) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    daily = {name: np.zeros(N_DAYS) if idle else rng.normal(0.001, 0.01, N_DAYS) for name in (symbol, "busy")}
    daily["sniper"] = np.zeros(N_DAYS)
    strategies = [_strategy(name, returns) for name, returns in daily.items()]
    if not idle:  # a seed in which one of them earned would do as well
        strategies[1]["verdict"]["live"] = live_record(0.12, 365)
    held = rng.normal(0, 0.02, N_DAYS)
    models = [_model("primary", "SequenceModel", 0.4, rng), _model("base_rate", "baseline", 0.0, rng)]
    note = "synthetic market with no edge" if synthetic else None
    return {
        "run": "20260101T000000Z_abcdef",
        "question": "Does the model see more than the base rate?",
        "synthetic": note,
        "verdict": verdict_of_run((-0.01, 0.02), {}).as_dict(),
        "models": models,
        "ensemble": _ensemble(symbol),
        "reliability": {"primary": _bins(rng), symbol: _bins(rng)},
        "auditor": {"n": 200, "paid": 0.4, "metrics": models[0]["metrics"]},
        "importance": {"permutation": _permuted(symbol), "auditor_gain": _shares(symbol)},
        "drift": {"auc": 0.7, "interval": [0.6, 0.8], "importances": _shares(symbol)},
        "folds": [_fold(0), _fold(1)],
        "regime": _regime(symbol),
        "audit_value": sample_honesty.audit_value(),
        "hindsight": sample_honesty.hindsight(),
        "paths": sample_honesty.paths(),
        "embedding": sample_embedding.embedding(symbol),
        "strategies": strategies,
        "benchmark": {"name": "buy and hold", "performance": _performance(held, np.array([]), 3)},
        "equity": {
            "time": [str(START + timedelta(days=k)) for k in range(N_DAYS)],
            "curves": {n: np.cumprod(1 + r).tolist() for n, r in {**daily, "buy and hold": held}.items()},
        },
        "tear_sheet": None if idle else sample_tear_sheet.tear_sheet(daily, START, symbol),
        "ledger": {"n_trials": 3, "sharpe_variance": 0.001, "list": [_trial(name) for name in daily]},
        "costs": {"fee_bps": 10.0, "slippage_bps": 5.0},
        "label": {"upper": 1.5, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14},
        "provenance": _provenance(note, symbol),
        "timings": {"bars": 1.5},
    }


def backtest_report(**options: Any) -> dict[str, Any]:
    """A report without what only training leaves."""
    return {k: v for k, v in sample_report(**options).items() if k not in TRAINING_SECTIONS}


def _performance(returns: np.ndarray, trades: np.ndarray, n_open: int) -> dict[str, Any]:
    active = (returns != 0).astype(float)
    out = performance(
        returns, periods_per_year=365, trade_returns=trades, n_open_trades=n_open, exposure_T=active,
        turnover_T=active * 0.5, costs_T=active * 1e-4, n_trials=3, sharpe_variance=0.001,
    )  # fmt: skip
    return out | {"n_cancelled": 0, "n_spanning_gap": 0}


def _strategy(name: str, returns: np.ndarray) -> dict[str, Any]:
    result = _performance(returns, returns[returns != 0][::8], 0)
    tested = joint_test([Batch(1, returns)], n_draws=200, seed=0)[0][0]
    verdict = verdict_of_strategy(result, tested, skill_low=-0.01)
    return {"name": name, "settings": "raw score >= 0.75", "performance": result, "verdict": verdict.as_dict()}


def _forecast(signal: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, 2, 400)
    return np.clip(0.5 + signal * (y - 0.5) * 0.3 + rng.normal(0, 0.15, 400), 0.01, 0.99), y


def _model(name: str, kind: str, signal: float, rng: np.random.Generator) -> dict[str, Any]:
    proba, y = _forecast(signal, rng)
    metrics = evaluate(proba, y, np.array([0.5, 0.5]), time_N=np.arange(400), min_block=4, n_draws=50)
    return {"name": name, "kind": kind, "metrics": metrics}


def _ensemble(symbol: str) -> dict[str, Any]:
    skills = [{"value": 0.02 * k, "low": 0.02 * k - 0.01, "high": 0.02 * k + 0.01, "n_batches": 30} for k in (-1, 1)]
    weights = {symbol: 0.0, "good": 0.8, "base_rate": 0.2}
    return {
        "kind": "RegimeWeighted", "n_folds": 4, "confidence": 0.95, "floor": 0.01, "shrinkage": 100.0,
        "members": [
            {"name": symbol, "weight": 0.0, "skill": skills[0], "why": "its skill lies below zero"},
            {"name": "good", "weight": 0.8, "skill": skills[1], "why": ""},
            {"name": "base_rate", "weight": 0.2, "skill": None, "why": ""},
        ],
        "states": [{"name": name, "n_effective": 321.4, "weights": weights} for name in ("calm", "panic")],
    }  # fmt: skip


def _bins(rng: np.random.Generator) -> list[dict[str, float | int]]:
    return reliability(*_forecast(0.5, rng))


def _permuted(symbol: str) -> list[dict[str, Any]]:
    return [{"name": f"{symbol}_{k}", "value": 0.01 - k / 1e3, "low": 0.005 - k / 1e3, "high": 0.02} for k in range(20)]


def _shares(symbol: str) -> list[dict[str, Any]]:
    return [{"name": f"{symbol}_{k}", "value": (20 - k) / 210} for k in range(20)]


def _fold(k: int) -> dict[str, Any]:
    def part(first: int, last: int) -> dict[str, Any]:
        days = [datetime.fromisoformat("2022-01-01T00:00:00+00:00") + timedelta(days=d + 30 * k) for d in (first, last)]
        reads = [days[0] - timedelta(days=1), days[1] + timedelta(days=1)]
        return {
            "n": 24 * (last - first),
            "decisions": [d.isoformat() for d in days],
            "reads": [d.isoformat() for d in reads],
        }

    return {"n_purged": 120, "train": part(0, 200), "valid": part(204, 250), "test": part(254, 300)}


def _regime(symbol: str) -> dict[str, Any]:
    start = datetime.fromisoformat("2022-01-01T01:00:00+00:00")
    hours = [h + (1000 if h >= 150 else 0) for h in range(300)]  # a hole after the first half
    return {
        "symbol": symbol,
        "names": ["calm", "trend", symbol],
        "time": [(start + timedelta(hours=h)).isoformat() for h in hours],
        "close": (100 * np.exp(np.sin(np.arange(300) / 20) / 10)).tolist(),
        "state": [k // 40 % 3 for k in range(300)],
    }


def _trial(name: str) -> dict[str, Any]:
    return {"when": "2026-01-01T00:00:00.123456Z", "subject": name, "who": "a@b", "run": "runs/train/x", "sharpe": 0.05}


def _provenance(note: str | None, symbol: str) -> dict[str, Any]:
    data = {"kind": "made here", "synthetic": note is not None, "symbols": [symbol], "digest": "0f" * 32, "start": None}
    return {
        "created": "2026-01-01T00:00:00+00:00",
        "code_sha": "0123456789ab+dirty",
        "config_digest": "f0" * 32,
        "data": data | ({"note": note} if note else {}),
        "packages": {"numpy": "2.4.6"},
        "python": "3.11.7",
        "machine": "x86_64, 2 CPU cores",
        "seed": 7,
        "config": {"data": {"symbols": [symbol]}, "evaluation": {"confidence": 0.95}},
        "bundle": {
            "train": ["2022-01-01T00:00:00+00:00", "2022-07-01T00:00:00+00:00"],
            "test": ["2022-02-01T00:00:00+00:00"] * 2,
        },
    }
