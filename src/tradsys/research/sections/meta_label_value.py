"""Whether the auditor helps: each audited strategy, the same without the auditor, Reckless, and placebo auditors.

All of it re-reads a span whose strategies are evaluated and counted already, to explain one of them; nothing may be
chosen by it, so nothing enters the trial ledger. The result may be "no".
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Samples
from tradsys.evidence.controls.placebo import (
    DailyRecord,
    against_placebos,
    helps,
    paired_differences,
    precision_lift,
    rotated_vetoes,
)
from tradsys.labels.meta import pays
from tradsys.market.bars import utc_series
from tradsys.research.sections.test_span import EvaluatedSpan
from tradsys.serving.strategy import AuditMask, Profile

RECKLESS = "reckless"


class AuditValue(TypedDict):
    """The section `audit_value` of the report.

    rows: one per profile, see `audit_value`. drawn: whether any has placebos.
    """

    rows: list[Json]
    drawn: bool


def audit_value(span: EvaluatedSpan, profiles: Mapping[str, Profile], test: Samples) -> AuditValue | None:
    """The report's section `audit_value`: one row for every profile with an AuditMask.

    None where there is none. test: the span's samples, whose outcomes determine which candidates paid. Ready for JSON:
    `drawn`, whether any has placebos, and in each row: name, settings, verdict (`helps`, and a caution), coverage,
    sides (trades, yearly Sharpe, mean net return of a trade of each strategy compared), versus (paired differences from
    each), placebos (see `against_placebos`; `draws` for the figure), precision (see `precision_lift`). None where no
    comparison is possible.
    """
    audited = {name: p for name, p in profiles.items() if any(isinstance(m, AuditMask) for m in p.masks)}
    if not audited or "audit" not in span.predictions.columns:
        return None
    paid = _outcomes(test, span.costs.log_round_trip)
    rows = [_profile_row(span, name, audited[name], profiles, paid) for name in audited]
    return {"rows": rows, "drawn": any(row["placebos"] for row in rows)}


def without_auditor(profile: Profile) -> Profile:
    """The profile with every mask but the auditor's."""
    return replace(profile, masks=[mask for mask in profile.masks if not isinstance(mask, AuditMask)])


def _outcomes(test: Samples, log_round_trip: float) -> pl.DataFrame:
    """symbol, time, paid: whether a position of each test sample, on its label's side, paid after costs."""
    return pl.DataFrame(
        {
            "symbol": test.table.symbols_of(test.rows),
            "time": utc_series(test.time),
            "paid": pays(test.ret, log_round_trip).astype(bool),
        }
    )


def _profile_row(
    span: EvaluatedSpan, name: str, profile: Profile, profiles: Mapping[str, Profile], paid: pl.DataFrame
) -> Json:
    twin = span.targets(without_auditor(profile))
    targets = {"audited": span.targets(profile), "unaudited": twin}
    if RECKLESS in profiles:
        targets[RECKLESS] = span.targets(profiles[RECKLESS])
    candidate, kept = _candidates(span.predictions, twin, targets["audited"])
    coverage = {"n": len(candidate), "n_kept": int(kept.sum())}
    row: Json = {"name": name, "settings": profile.describe(), "coverage": coverage}
    if not 0 < coverage["n_kept"] < coverage["n"]:
        passed = "none" if coverage["n_kept"] == 0 else "every one"
        reason = f"it let {passed} of {coverage['n']:,} candidates pass, so there is nothing to compare"
        verdict = {"kind": "cannot be determined", "reasons": [reason], "caution": None}
        return row | {"verdict": verdict, "sides": None, "versus": None, "placebos": None, "precision": None}
    record, n_trades = span.record(targets | _placebos(span, twin, candidate, coverage["n_kept"]))
    precision = _precision(span, twin, candidate, kept, paid)
    compared = _compared(span, list(targets), record, n_trades)
    compared["verdict"]["caution"] = _caution(compared["verdict"]["kind"], precision)
    return row | compared | {"precision": precision}


def _caution(kind: str, precision: Mapping[str, Any] | None) -> str | None:
    """Caution of a yes: an auditor may beat chance and still be no better than a higher threshold."""
    low = None if precision is None else precision["lift"]["low"]
    if kind != "yes" or (low is not None and low > 0):
        return None
    return "it is not shown to pick better than a higher threshold on the model's own score"


def _candidates(predictions: pl.DataFrame, twin: pl.DataFrame, audited: pl.DataFrame) -> tuple[Array, Array]:
    """Rows [N] of the predictions where the strategy would enter without the auditor; which of them it let pass."""
    numbered = predictions.select("symbol", "time").with_row_index("row")
    rows, passed = (
        numbered.join(t.select("symbol", "time"), on=["symbol", "time"], how="semi")["row"].to_numpy().astype(np.int64)
        for t in (twin, audited)
    )
    return rows, np.isin(rows, passed)


def _placebos(span: EvaluatedSpan, twin: pl.DataFrame, candidate: Array, n_kept: int) -> dict[str, pl.DataFrame]:
    """Targets of the strategy under each placebo auditor."""
    frame = span.predictions
    kept_PN = rotated_vetoes(
        frame["audit"].to_numpy(),
        np.unique(frame["symbol"].to_numpy(), return_inverse=True)[1],
        np.unique(frame["time"].to_numpy(), return_inverse=True)[1],
        candidate,
        n_kept,
        n_draws=span.evaluation.n_placebos,
        min_shift=span.horizon_bars(),
        seed=span.seed,
    )
    entries = twin.sort("symbol", "time")  # as the predictions are, so that row n is candidate n
    return {f"placebo {p}": entries.filter(pl.Series(kept)) for p, kept in enumerate(kept_PN)}


def _compared(span: EvaluatedSpan, names: list[str], record: DailyRecord, n_trades: Array) -> Json:
    """Comparisons from days and trades; the record's first columns are `names`, the rest placebos."""
    columns = {name: slice(k, k + 1) for k, name in enumerate(names)} | {"placebos": slice(len(names), None)}
    parts = {name: record.columns(where) for name, where in columns.items() if n_trades[where].size}
    settings = span.settings()
    versus = {
        name: paired_differences(parts["audited"], part, **settings)
        for name, part in parts.items()
        if name != "audited"
    }
    yearly = np.sqrt(settings["periods_per_year"])
    sharpe, per_trade = yearly * record.sharpe(), record.per_trade()
    rest = columns["placebos"]
    drawn = {
        "sharpe": against_placebos(sharpe[0], sharpe[rest]),
        "per_trade": against_placebos(per_trade[0], per_trade[rest]),
    }
    verdict = helps(
        drawn,
        versus.get("placebos", versus["unaudited"]),
        versus["unaudited"],
        n_trades=int(n_trades[0]),
        min_trades=span.evaluation.min_trades,
    )
    shown = {"sharpe": sharpe[rest], "per_trade": per_trade[rest]}
    return {
        "verdict": verdict,
        "sides": {
            name: {
                "n_trades": float(n_trades[at].mean()),
                "sharpe": _finite_mean(sharpe[at]),
                "per_trade": _finite_mean(per_trade[at]),
            }
            for name, at in columns.items()
            if name in parts
        },
        "versus": {name: found.as_dict() for name, found in versus.items()},
        "placebos": {**drawn, "draws": {k: _finite_rounded(v) for k, v in shown.items()}}
        if "placebos" in parts
        else None,
    }


def _finite_mean(values: Array) -> float | None:
    """Mean of the finite values, None without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _finite_rounded(values: Array) -> list[float]:
    """The finite values, to six significant digits, for a histogram."""
    return [float(f"{v:.6g}") for v in values[np.isfinite(values)]]


def _precision(
    span: EvaluatedSpan, twin: pl.DataFrame, candidate: Array, kept: Array, paid: pl.DataFrame
) -> Json | None:
    """`precision_lift` over the resolved candidates; None for fewer than two, or where none paid.

    Labels refer to the bundle's own side where it has one, else to a long: a short then has no outcome here.
    """
    known = pl.col("side") != 0 if "side" in span.predictions.columns else pl.col("side") > 0
    frame = (
        span.predictions[candidate]
        .select("symbol", "time", "score")
        .with_columns(kept=pl.Series(kept))
        .join(twin.select("symbol", "time", "side"), on=["symbol", "time"], how="inner", maintain_order="left")
        .filter(known)
        .join(paid, on=["symbol", "time"], how="inner", maintain_order="left")
    )
    if len(frame) < 2 or not frame["paid"].any():
        return None
    return precision_lift(
        *(frame[name].to_numpy() for name in ("paid", "kept", "score", "time")),
        min_block=float(span.horizon_bars()),
        confidence=span.evaluation.confidence,
    )
