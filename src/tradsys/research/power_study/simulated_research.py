"""The complete research process on one market, from bars to verdict, with the greed of a real researcher.

Candidate models are fitted on training rows; the model, each profile's level and the profile are chosen on validation
rows; then the test span is evaluated four times, each time more widely, all in one trial ledger.
"""

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tradsys.core.errors import TradsysError, TrainingError
from tradsys.core.headline import EstimateRow, headline_skill
from tradsys.core.plain_data import Config, Json
from tradsys.core.protocols import Model
from tradsys.core.tables import Array, Samples
from tradsys.evidence.classification import evaluate
from tradsys.evidence.skill import log_losses
from tradsys.evidence.verdict import verdict_of_run
from tradsys.models.baseline import BaseRate
from tradsys.research.pipeline.backtesting import Backtest, backtest, bounds, validation_sharpes
from tradsys.research.pipeline.bundle_export import export_bundle
from tradsys.research.pipeline.dataset import Prepared, aware, load_bars, prepare
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import fit
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.research.power_study.markets import ARMS, CHOSEN, EVALUATIONS, LEVELS, PROFILES
from tradsys.samples.weights import class_rates
from tradsys.serving.bundle import Bundle
from tradsys.serving.strategy import AuditMask, BreakEvenRule, Profile

LOG = logging.getLogger(__name__)
REFUSED = "refused"


@dataclass(frozen=True)
class SpanEvaluation:
    """One evaluation of the test span.

    n_strategies: evaluated in it. n_trials: distinct series in the ledger by then; n_effective: their effective number,
    which deflates. best: highest Sharpe. winners: strategies with an edge.
    """

    name: str
    n_strategies: int
    n_trials: int
    n_effective: int
    verdict: str
    best: float | None
    winners: tuple[str, ...]


@dataclass(frozen=True)
class MarketRow:
    """Result of the process on one market.

    verdict: `edge` where any evaluation ended in one, else that of the last one; `refused`, with the reason, where the
    package raised an error (one class only, no convergence). sharpe: yearly, after costs, of the
    one strategy that validation chose, 0 where it never traded; valid_sharpe the same on the rows that chose it.
    skill: of the chosen model on test rows. test_years: calendar years of test decisions.
    """

    edge: float
    seed: int
    verdict: str
    looks: tuple[SpanEvaluation, ...] = ()
    strategy: str = ""
    sharpe: float | None = None
    valid_sharpe: float | None = None
    n_trades: int = 0
    skill: float | None = None
    years: float | None = None
    test_years: float | None = None
    seconds: float = 0.0
    reason: str = ""
    code_sha: str = ""

    def as_dict(self) -> Json:
        """The fields, ready for JSON."""
        return asdict(self)

    def found_by(self, look: str) -> bool:
        """True where this evaluation, or an earlier one, ended in `edge`."""
        upto = EVALUATIONS[: EVALUATIONS.index(look) + 1]
        return any(one.verdict == "edge" for one in self.looks if one.name in upto)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted candidate with all its parts, as its bundle.

    Without an auditor where candidates were too few.
    """

    name: str
    bundle: Bundle
    valid_loss: float
    skill: EstimateRow


def run_market(
    experiment: Experiment, levels: Mapping[str, Sequence[float]], config: Mapping[str, Any], edge: float, seed: int
) -> MarketRow:
    """The verdict on one synthetic market.

    Writes nothing; the same arguments give the same row. levels: by profile of `experiment.strategy`, the values that
    replace its rule's value (its margin for a break-even rule).
    """
    began = perf_counter()
    market, plain = on_market(experiment, config, edge, seed)
    try:
        with tempfile.TemporaryDirectory(prefix="tradsys_market_") as scratch:
            row = _research(market, levels, plain, Path(scratch), edge, seed)
    except TradsysError as refusal:
        row = MarketRow(edge, seed, REFUSED, reason=str(refusal))
    return replace(row, seconds=perf_counter() - began)


def on_market(experiment: Experiment, config: Mapping[str, Any], edge: float, seed: int) -> tuple[Experiment, Config]:
    """The experiment and its config, moved to a synthetic market.

    The market has that edge and seed.
    """
    source = replace(experiment.data["source"], edge=edge, seed=seed)
    data = config["data"]
    plain = {**data, "edge": edge, "seed": seed, "source": {**data["source"], "edge": edge, "seed": seed}}
    return replace(experiment, data={**experiment.data, "source": source}), {**config, "data": plain}


def candidates_of(experiment: Experiment) -> dict[str, Model]:
    """Candidate models: the baselines without the base rate."""
    return {name: m for name, m in experiment.baselines.items() if not isinstance(m, BaseRate)}


def at_levels(profiles: Mapping[str, Profile], levels: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Profile]]:
    """Copies of each profile at every level: a dict by profile, then by `name level`."""
    return {
        name: {f"{name} {level:g}": replace(profile, rule=_at_level(profile.rule, level)) for level in levels[name]}
        for name, profile in profiles.items()
    }


def _at_level(rule: Any, level: float) -> Any:
    return replace(rule, margin=level) if isinstance(rule, BreakEvenRule) else replace(rule, value=level)


def _research(
    e: Experiment, levels: Mapping[str, Sequence[float]], config: Config, scratch: Path, edge: float, seed: int
) -> MarketRow:
    prepared = prepare(e, load_bars(e))
    ledger = TrialLedger(scratch / "ledger.db")
    arms = [
        _fitted_candidate(e, prepared, name, model, scratch / name, config) for name, model in candidates_of(e).items()
    ]
    best, *others = sorted(arms, key=lambda arm: arm.valid_loss)
    grid = at_levels(playable(best, e.strategy), levels)
    on_valid = valid_sharpes(e, prepared, best.bundle, {k: p for tried in grid.values() for k, p in tried.items()})
    tuned = {max(tried, key=on_valid.__getitem__): tried for tried in grid.values()}
    chosen = max(tuned, key=on_valid.__getitem__)
    every = {name: profile for tried in grid.values() for name, profile in tried.items()}
    source = provenance(config, best.bundle.card["data"])
    for arm in arms:
        _record(ledger, prepared, arm, source)
    looks = [
        (CHOSEN, best, {chosen: every[chosen]}),
        (PROFILES, best, {name: every[name] for name in tuned}),
        (LEVELS, best, every),
        *((ARMS, arm, _profiles_of(arm, at_levels(playable(arm, e.strategy), levels))) for arm in others),
    ]
    reported, tests = [], []
    for name, arm, profiles in looks:
        tests.append(_test(e, prepared, arm, profiles, ledger, source, run=name))
        reported.append(_evaluation(name, arm, tests[-1]))
    winning = any(look.verdict == "edge" for look in reported)
    result = tests[0].rows[0]["performance"]
    return MarketRow(
        edge=edge,
        seed=seed,
        verdict="edge" if winning else reported[-1].verdict,
        looks=tuple(reported),
        strategy=f"{best.name} {chosen}",
        sharpe=yearly_sharpe(result) or 0.0,
        valid_sharpe=on_valid[chosen] if np.isfinite(on_valid[chosen]) else None,
        n_trades=result["n_trades"],
        skill=best.skill["value"],
        years=_years(prepared.bars["time"].to_numpy()),
        test_years=_years(prepared.test.time),
    )


def yearly_sharpe(performance: Mapping[str, Any]) -> float | None:
    """The record's Sharpe ratio, also where it is too short to be shown.

    A mean over markets needs every one.
    """
    per_period = performance["sharpe_per_period"]
    return None if per_period is None else float(per_period * np.sqrt(performance["periods_per_year"]))


def playable(arm: Candidate, profiles: Mapping[str, Profile]) -> dict[str, Profile]:
    """Profiles that the candidate can trade.

    All, or those without an auditor where it has none.
    """
    audited = {name: any(isinstance(mask, AuditMask) for mask in p.masks) for name, p in profiles.items()}
    return {name: p for name, p in profiles.items() if arm.bundle.auditor is not None or not audited[name]}


def _profiles_of(arm: Candidate, grid: Mapping[str, Mapping[str, Profile]]) -> dict[str, Profile]:
    return {f"{arm.name} {name}": p for tried in grid.values() for name, p in tried.items()}


def _years(time: Array) -> float:
    return float((time.max() - time.min()) / np.timedelta64(1, "h")) / (365 * 24)


def _fitted_candidate(
    e: Experiment, prepared: Prepared, name: str, model: Any, folder: Path, config: Config
) -> Candidate:
    """One model fitted with its calibrator, regime and auditor, exported; its losses on valid, its skill on test."""
    alone = replace(e, model=model, baselines={})
    try:
        fitted = fit(alone, prepared, folder / "checkpoints", Timings())
    except TrainingError as refusal:
        if alone.auditor is None or not str(refusal).startswith("auditor: "):
            raise
        LOG.info("%s; %s goes on without one", refusal, name)  # as the message tells a researcher to do
        alone = replace(alone, auditor=None)
        fitted = fit(alone, prepared, folder / "checkpoints", Timings())
    bundle = export_bundle(alone, prepared, fitted, folder / "bundle", config, with_drift=False)
    valid, test = prepared.valid, prepared.test
    metrics = evaluate(
        bundle.primary.predict(test.table, test.rows)[1],
        test.y,
        class_rates(prepared.train),
        time_N=test.time,
        min_block=e.labels.horizon_bars,
        n_draws=e.evaluation.n_draws,
        confidence=e.evaluation.confidence,
        seed=e.seed,
    )
    score_NC = bundle.primary.predict(valid.table, valid.rows)[0]
    return Candidate(name, bundle, float(log_losses(score_NC, valid.y).mean()), headline_skill(metrics))


def valid_sharpes(
    e: Experiment, prepared: Prepared, bundle: Bundle, profiles: Mapping[str, Profile]
) -> dict[str, float]:
    """Yearly Sharpe after costs of each profile on validation decisions.

    Minus infinity where it never traded.
    """
    return validation_sharpes(bundle, prepared.bars, profiles, e.costs, _span(prepared.valid), table=prepared.table)


def _span(samples: Samples) -> tuple[datetime, datetime]:
    return aware(samples.time.min()), aware(samples.time.max())


def _record(ledger: TrialLedger, prepared: Prepared, arm: Candidate, source: Mapping[str, Any]) -> None:
    """The model's evaluation on the test span, recorded as train does."""
    since, until = _span(prepared.test)
    entry = LedgerEntry(
        purpose="model on test",
        subject=arm.name,
        code_sha=source["code_sha"],
        config_digest=source["config_digest"],
        data_digest=prepared.data_digest,
        span_start=since,
        span_end=until,
        measure="loss",
    )
    probability_NC = arm.bundle.primary.predict(prepared.test.table, prepared.test.rows)[1]
    ledger.append(entry, log_losses(probability_NC, prepared.test.y))


def _test(
    e: Experiment,
    prepared: Prepared,
    arm: Candidate,
    profiles: Mapping[str, Profile],
    ledger: TrialLedger,
    source: Mapping[str, Any],
    run: str,
) -> Backtest:
    since, until = _span(prepared.test)
    return backtest(
        arm.bundle,
        prepared.bars,
        profiles,
        e.costs,
        e.evaluation,
        ledger=ledger,
        source=source,
        run=run,
        skill_low=arm.skill["low"],
        since=since,
        until=until,
        with_tear_sheet=False,
        table=prepared.table,
    )


def _evaluation(name: str, arm: Candidate, tested: Backtest) -> SpanEvaluation:
    values = [yearly_sharpe(row["performance"]) for row in tested.rows]
    return SpanEvaluation(
        name=name,
        n_strategies=len(tested.rows),
        n_trials=tested.trials["n_looks"],
        n_effective=math.ceil(tested.trials["n_effective"] - 1e-9),
        verdict=verdict_of_run(bounds(arm.skill), tested.verdicts).kind,
        best=max((v for v in values if v is not None), default=None),
        winners=tuple(n for n, verdict in tested.verdicts.items() if verdict.kind == "edge"),
    )
