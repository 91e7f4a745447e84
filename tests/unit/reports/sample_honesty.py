"""The sections of a report that ask honest questions, small, with the numbers made up."""

from datetime import date, timedelta
from typing import Any

import numpy as np

N_DAYS = 60
DAYS = [str(date(2023, 1, 1) + timedelta(days=k)) for k in range(N_DAYS)]
STATES = ["calm", "trend", "panic"]


def estimate(value: float | None, reason: str | None = None) -> dict[str, Any]:
    known = {} if value is None else {"low": value - 0.5, "high": value + 0.5}
    return {"value": value, "low": None, "high": None, "reason": reason} | known


def audit_value(kind: str = "no", *, judged: bool = True) -> dict[str, Any]:
    """judged: whether anything could be compared; else the auditor let every candidate pass."""
    row: dict[str, Any] = {
        "name": "audited",
        "settings": "raw score >= 0.75; auditor >= 0.5",
        "coverage": {"n": 400, "n_kept": 150 if judged else 400},
        "verdict": {"kind": kind, "reasons": ["a reason for it"], "caution": None},
        **dict.fromkeys(("sides", "versus", "placebos", "precision")),
    }
    if not judged:
        return {"rows": [row | {"verdict": row["verdict"] | {"kind": "cannot be determined"}}], "drawn": False}
    rng = np.random.default_rng(0)
    gap = {"sharpe": estimate(0.1), "per_trade": estimate(0.001)}
    rank = {"value": 1.2, "mean": 1.1, "low": 0.2, "high": 2.0, "p_value": 0.31, "n": 1000}
    sides = {
        side: {"n_trades": 80.0, "sharpe": 1.2, "per_trade": 0.001}
        for side in ("audited", "unaudited", "reckless", "placebos")
    }
    row |= {
        "sides": sides,
        "versus": {side: gap | {"p_value": None if side == "placebos" else 0.4} for side in list(sides)[1:]},
        "placebos": {
            "sharpe": rank,
            "per_trade": rank | {"p_value": 0.0005},
            "draws": {
                "sharpe": rng.normal(1.1, 0.4, 1000).round(4).tolist(),
                "per_trade": rng.normal(0.001, 0.0004, 1000).round(7).tolist(),
            },
        },
        "precision": {
            "n": 380, "n_kept": 140, "base": 0.4, "precision": 0.45, "recall": 0.41, "matched": 0.44,
            "lift": {"value": 0.01, "low": -0.04, "high": 0.06, "reason": None},
        },
    }  # fmt: skip
    return {"rows": [row], "drawn": True}


def hindsight(*, traded: bool = True) -> dict[str, Any]:
    """traded: whether any strategy has a regime mask and traded."""
    growth = {"none": 0.0005, "filtered": 0.001, "smoothed": 0.004, "viterbi": 0.005}
    curves = {view: np.cumprod(np.full(N_DAYS, 1 + rate)).tolist() for view, rate in growth.items()}
    views = {view: {"n_trades": 40, "total_return": 60 * rate, "sharpe": 900 * rate} for view, rate in growth.items()}
    gap = {view: {"sharpe": estimate(900 * growth[view] - 0.9)} for view in ("smoothed", "viterbi", "none")}
    strategy = {"name": "sniper", "settings": "raw score >= 0.95; not in regime calm", "views": views, "gap": gap}
    return {
        "names": STATES,
        "views": [{"view": view, "known": view in ("none", "filtered"), "says": f"words of {view}"} for view in growth],
        "strategies": [strategy] if traded else [],
        "curves": {"strategy": "sniper", "time": DAYS, "curves": curves} if traded else None,
        "states": [
            {
                "name": name, "stay_bars": 20.0 + k, "seen_bars": {"filtered": 12.0, "smoothed": 18.0, "viterbi": None},
                "occupancy": {"train": 1 / 3, "valid": 0.2 + 0.1333 * k, "test": 1 / 3},
                "confirmed": {"filtered": 1.0, "smoothed": 0.9, "viterbi": None},
            }
            for k, name in enumerate(STATES)
        ],
        "agreement": {"smoothed": 0.91, "viterbi": 0.89},
        "refit": {
            "agreement": 0.4, "by_chance": 0.34, "renamed": 0.9, "confusion": [[1, 2, 3]] * 3, "n": 500, "reason": None,
        },
        "contribution": [
            {"name": "the market", "traded": False, "regimes": [{"regime": n, "n": 90, "earned": 0.1} for n in STATES]},
            {
                "name": "sniper", "traded": True,
                "regimes": [
                    {"regime": n, "n": 9 * k, "earned": 0.02 * k, "per_trade": estimate(0.001 if k else None, "idle")}
                    for k, n in enumerate(STATES)
                ],
            },
        ],
    }  # fmt: skip


def paths(*, stands_in: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    returns = rng.normal(0.001, 0.01, (N_DAYS, 7))
    sharpe = (returns.mean(axis=0) / returns.std(axis=0) * np.sqrt(365)).round(4)
    return {
        "time": DAYS,
        "curves": np.cumprod(1 + returns, axis=0).T.tolist(),
        "sharpe": sharpe.tolist(),
        "mean": float(sharpe.mean()),
        "median": float(np.median(sharpe)),
        "low": float(sharpe.min()),
        "high": float(sharpe.max()),
        "worst": float(sharpe.min()),
        "share_positive": 0.86,
        "n_paths": 7,
        "n_days": N_DAYS,
        "periods_per_year": 365.0,
        "model": "logistic" if stands_in else "primary",
        "stands_in": stands_in,
        "rule": "long where the score is high",
        "n_fits": 28,
        "n_groups": 8,
        "n_test_groups": 2,
    }
