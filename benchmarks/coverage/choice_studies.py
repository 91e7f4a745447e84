"""Coverage of what ranks trials and weighs members, and of bounds that are read every day: simulations as in `studies`.

Legend: R runs, T times, F folds, S seeds, N samples.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tradsys.core.tables import Array
from tradsys.evidence import cosines
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.controls.placebo import DailyRecord, paired_differences
from tradsys.evidence.sequential import followed
from tradsys.evidence.skill import log_losses
from tradsys.models.ensembles.pool_weights import skill, time_batches
from tradsys.research.power_study.markets import EVALUATIONS
from tradsys.research.power_study.simulated_research import MarketRow, SpanEvaluation
from tradsys.research.power_study.study import StudySettings, smallest_found
from tradsys.research.sweeps.selection import lower_bound, paired_gain

from studies import Row, coverage_row, market, overlapping, persistent, size_row, truths  # isort: skip

FEATURES = 6  # of a sweep's market


def returns(rng: np.random.Generator, kind: str, n_times: int) -> Array:
    """Returns of variance one and mean zero [T]: normal, student 4, volatility clusters, short options, memory."""
    if kind == "normal":
        return rng.normal(size=n_times)
    if kind == "Student 4":
        return rng.standard_t(4, size=n_times) / np.sqrt(2)
    if kind == "volatility clusters":
        log_deviation = persistent(rng, n_times, 0.97) * 0.5
        return rng.normal(size=n_times) * np.exp(log_deviation - 0.25)
    if kind == "rare losses":  # gains of 0.1 on most days, a loss of 1.9 on one of twenty
        return (0.1 - 2.0 * (rng.random(n_times) < 0.05)) / np.sqrt(0.05 * 0.95 * 4)
    return persistent(rng, n_times, 0.2)  # memory


def live_size(n_runs: int = 2000, n_times: int = 750) -> Iterator[Row]:
    """Bounds of a live record: how often they miss the mean on any of three years' days."""
    for kind in ("normal", "Student 4", "volatility clusters", "rare losses", "autoregression 0.2"):
        rng, missed = np.random.default_rng([n_times, len(kind)]), [0, 0]
        for _ in range(n_runs):
            record = returns(rng, kind, n_times)
            for k, deviation in enumerate((1.0, 0.0)):
                _, low, high = followed(record, expected_deviation=deviation)
                missed[k] += bool((low > 0).any() or (high < 0).any())
        for k, known in enumerate(("its deviation known", "nothing known")):
            setting = f"{n_times} days, {kind}, {known}"
            yield Row("bounds of a live record, at most", setting, 0.05, missed[k] / n_runs, n_runs, n_runs)


def harder_sharpe_coverage(n_runs: int = 1000) -> Iterator[Row]:
    """Sharpe ratios of returns whose volatility clusters, or that lose much and seldom."""
    for kind in ("volatility clusters", "rare losses"):
        for n_times in (365, 1000):
            rng = np.random.default_rng([n_times, len(kind)])
            found = [cosines.sharpe_spread(returns(rng, kind, n_times) + 0.05).estimates()[0] for _ in range(n_runs)]
            yield coverage_row("Sharpe ratio", f"T={n_times}, {kind}, 0.05 a period", found, 0.05)


def versus_size(n_runs: int = 1000) -> Iterator[Row]:
    """An auditor that knows nothing beside its strategy without it: how often their Sharpe ratios differ."""
    for n_days, horizon in ((250, 1), (400, 1), (1000, 5)):
        rng, p_values = np.random.default_rng([n_days, horizon]), []
        for _ in range(n_runs):
            both = overlapping(rng, n_days, horizon, 2)
            record = DailyRecord(both, both, np.ones_like(both))
            found = paired_differences(
                record.columns(slice(0, 1)), record.columns(slice(1, 2)), periods_per_year=365, min_block=horizon
            )
            p_values.append(found.p_value)
        yield size_row("equal Sharpe ratios", f"T={n_days}, H={horizon}", p_values)


def member_coverage(n_runs: int = 1000) -> Iterator[Row]:
    """Skill of an ensemble's member over the base rate, from stretches of time longer than a label."""
    for n_times, horizon, n_names in ((500, 1, 1), (500, 20, 1), (2000, 20, 1), (1000, 20, 5)):
        rng, found = np.random.default_rng([n_times, horizon, n_names]), []
        for _ in range(n_runs):
            one = market(rng, n_times, horizon, n_names)
            loss = log_losses(stats.norm.cdf(one.strength * one.score.ravel()), one.y.ravel())
            time = np.repeat(np.arange(n_times), n_names)
            measured = skill(
                loss, np.full(len(loss), np.log(2)), np.ones(len(loss)), time_batches(time, horizon), confidence=0.95
            )
            found.append(Estimate(measured.value, measured.low, measured.high))
        setting = f"T={n_times}, H={horizon}, {n_names} names"
        yield coverage_row("skill of a member", setting, found, truths(0.3, 1.0)["skill_over_base_rate"])


def _folds(rng: np.random.Generator, n_times: int, horizon: int, n_folds: int) -> tuple[Array, Array]:
    """Skills [F, 2] of two models that see equally noisy copies of one signal, folds in turn.

    Each fold is forecast by models trained on the other folds, a label's length from it: their training rows overlap.
    """
    signal, noise = overlapping(rng, n_times, horizon, 1), overlapping(rng, n_times, horizon)
    y = (0.3 * signal[:, 0] + noise > 0).astype(int)
    time, skills = np.arange(n_times), np.empty((n_folds, 2))
    edges = np.linspace(0, n_times, n_folds + 1).astype(int)
    for arm in range(2):
        x = np.hstack([signal + 0.5 * overlapping(rng, n_times, horizon, 1), rng.normal(size=(n_times, FEATURES - 1))])
        for f, (start, end) in enumerate(pairwise(edges)):
            train = (time < start - horizon) | (time >= end + horizon)
            model = LogisticRegression(C=1.0).fit(x[train], y[train])
            test = slice(start, end)
            proba = model.predict_proba(x[test])[:, 1]
            rate = float(y[train].mean())
            base = log_losses(np.full(end - start, rate), y[test]).mean()
            skills[f, arm] = 1 - log_losses(proba, y[test]).mean() / base
    return skills[:, :1], skills[:, 1:]


def trial_coverage(n_runs: int = 400) -> Iterator[Row]:
    """What `tune` prints of trials: the paired gain of an equally good one, and the lower bound of one's mean skill."""
    for n_times, horizon, n_folds in ((1500, 1, 3), (1500, 1, 5), (3000, 10, 5)):
        rng, gains, bounds, means = np.random.default_rng([n_times, horizon, n_folds]), [], [], []
        for _ in range(n_runs):
            one, other = _folds(rng, n_times, horizon, n_folds)
            gain = paired_gain(one, other, 0.95)
            gains.append(Estimate(gain["value"], gain["low"], gain["high"]))
            bounds.append(lower_bound(one, 0.95))
            means.append(float(one.mean()))
        setting = f"{n_folds} folds of {n_times // n_folds}, H={horizon}"
        yield coverage_row("gain of a trial over folds", setting, gains, 0.0)
        held = float(np.mean(np.array(bounds) <= np.mean(means)))  # the truth: what such a trial has on average
        yield Row("lower bound of a trial", setting, 0.95, held, n_runs, n_runs)


def smallest_coverage(n_runs: int = 300, n_markets: int = 20) -> Iterator[Row]:
    """The smallest edge that is found 80 % of the time, in Sharpe ratios, from seven edges and n markets of each.

    Every market is found with the chance Phi((Sharpe - 1.8) / 0.8); that is 80 % at a Sharpe of 2.473. Markets of one
    seed share their luck by half, as markets do whose draws differ in the edge alone.
    """
    edges, needed = np.linspace(0.5, 5.0, 7), 1.8 + 0.8 * stats.norm.ppf(0.8)
    settings = StudySettings(name="smallest", edges=tuple(edges), n_markets=n_markets, levels={})
    rng, found = np.random.default_rng(n_markets), []
    for _ in range(n_runs):
        rows = []
        for seed, common in enumerate(rng.normal(size=n_markets)):
            luck = np.sqrt(0.5) * (common + rng.normal(size=len(edges)))
            for edge, draw in zip(edges, luck, strict=True):
                verdict = "edge" if edge - 1.8 + 0.8 * draw > 0 else "no edge"
                look = SpanEvaluation(EVALUATIONS[-1], 1, 1, 1, verdict, None, ())
                rows.append(MarketRow(float(edge), seed, verdict, (look,), sharpe=float(edge + 0.9 * rng.normal())))
        measured = smallest_found([{"edge": float(edge)} for edge in edges], rows, settings, n_draws=200)["sharpe"]
        found.append(Estimate(measured["value"], measured["low"], measured["high"]))
    yield coverage_row("smallest edge found", f"{n_markets} markets of each of 7 edges", found, float(needed))


STUDIES = {
    "live": live_size,
    "harder_sharpe": harder_sharpe_coverage,
    "versus": versus_size,
    "members": member_coverage,
    "trials": trial_coverage,
    "smallest": smallest_coverage,
}
