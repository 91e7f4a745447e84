"""How often intervals hold a known truth and tests reject one that holds: simulations with fixed seeds.

Every study yields rows; `run.py` prints them, the tests run them smaller. Legend: R runs, T times, N samples, K trials.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.signal import lfilter

from tradsys.core.tables import Array
from tradsys.evidence import cosines
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.calibration import reliability
from tradsys.evidence.classification import evaluate
from tradsys.evidence.controls.drift import adversarial_validation
from tradsys.evidence.controls.placebo import DailyRecord, paired_differences, precision_lift, trade_means
from tradsys.evidence.cross_section.association import associations, event_lift
from tradsys.evidence.cross_section.ranking import lift_at_k, pr_auc, precision_at_k
from tradsys.evidence.deflation import deflated_sharpe, deflation
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.evidence.overfitting import spa_test
from tradsys.evidence.paired import VariantLosses, compare
from tradsys.evidence.sharpe import sharpe_ratio
from tradsys.evidence.skill import log_losses
from tradsys.evidence.track_record.risk import risk_statistics
from tradsys.evidence.track_record.win_rate import win_rate
from tradsys.evidence.trials import independent_trials


@dataclass(frozen=True)
class Row:
    """One line of the table. nominal, measured: coverage of an interval or size of a test; n: runs that gave one.

    own_error: Monte-Carlo error where a run counts more than once, None where it counts once.
    """

    study: str
    setting: str
    nominal: float
    measured: float
    n: int
    n_runs: int
    own_error: float | None = None

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of `measured`."""
        if self.own_error is not None:
            return self.own_error
        return float(np.sqrt(max(self.measured * (1 - self.measured), 1e-9) / max(self.n, 1)))


def covered(found: list[Estimate], truth: float) -> tuple[float, int]:
    """Share of the intervals that hold the truth, and how many intervals there were."""
    held = [f.low <= truth <= f.high for f in found if f.low is not None and f.high is not None]
    return (float(np.mean(held)) if held else np.nan), len(held)


def coverage_row(study: str, setting: str, found: list[Estimate], truth: float) -> Row:
    share, n = covered(found, truth)
    return Row(study, setting, 0.95, share, n, len(found))


def overlapping(rng: np.random.Generator, n_times: int, horizon: int, *more: int) -> Array:
    """Sums of `horizon` independent normals, variance one [T, ...]: labels that overlap."""
    steps = rng.normal(size=(n_times + horizon - 1, *more)).cumsum(axis=0)
    before = np.concatenate([np.zeros((1, *more)), steps[:-horizon]])
    return (steps[horizon - 1 :] - before) / np.sqrt(horizon)


def persistent(rng: np.random.Generator, n_times: int, rho: float, *more: int) -> Array:
    """A first-order autoregression, variance one [T, ...]."""
    noise = rng.normal(size=(n_times + 500, *more)) * np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[500:]


def deflation_size(n_runs: int = 2000, counts: tuple[int, ...] = (5, 20, 50, 200)) -> Iterator[Row]:
    """Best of K trials without an edge, correlated with one another, T = 500: how often DSR >= .95."""
    n_times = 500
    for n_trials in counts:
        for rho in (0.0, 0.5, 0.8, 0.95):
            rng, hits, runs = (
                np.random.default_rng([n_trials, int(100 * rho)]),
                0,
                max(20, n_runs * 20 // max(20, n_trials)),
            )
            for _ in range(runs):
                common, own = rng.normal(size=(n_times, 1)), rng.normal(size=(n_times, n_trials))
                returns = np.sqrt(rho) * common + np.sqrt(1 - rho) * own
                sharpes = sharpe_ratio(returns)
                trials = deflation(sharpes, independent_trials(np.corrcoef(returns, rowvar=False)))
                hits += float(deflated_sharpe(returns[:, int(np.argmax(sharpes))], trials)) >= 0.95
            yield Row(
                "deflated Sharpe, at most", f"K={n_trials}, correlation {rho:g}, T=500", 0.05, hits / runs, runs, runs
            )


def mean_coverage(n_runs: int = 2000, lengths: tuple[int, ...] = (252, 504, 1000, 2000)) -> Iterator[Row]:
    """Rank correlations and decile spreads: means of daily series of labels that overlap."""
    for n_times in lengths:
        for horizon in (1, 5, 20, 60):
            rng = np.random.default_rng([n_times, horizon])
            series = overlapping(rng, n_times, horizon, n_runs)
            found = [cosines.mean_interval(one, min_block=horizon) for one in series.T]
            yield coverage_row("mean of rank IC, decile spread", f"T={n_times}, H={horizon}", found, 0.0)


def dependent_mean_coverage(n_runs: int = 2000) -> Iterator[Row]:
    """Means of autoregressions, whose dependence is estimated."""
    for n_times in (500, 2000):
        for rho in (0.5, 0.8):
            series = persistent(np.random.default_rng([n_times, int(rho * 10)]), n_times, rho, n_runs)
            found = [cosines.mean_interval(one) for one in series.T]
            yield coverage_row("mean, dependence estimated", f"T={n_times}, autoregression {rho}", found, 0.0)


def sharpe_coverage(n_runs: int = 1000) -> Iterator[Row]:
    """Sharpe ratios and the figures of `risk` on independent, fat-tailed and dependent returns."""
    for n_times in (365, 1000):
        for name, rho, fat in (("normal", 0.0, 0), ("Student 5", 0.0, 5), ("autoregression 0.3", 0.3, 0)):
            rng = np.random.default_rng([n_times, fat])
            noise = (
                rng.standard_t(fat, size=(n_times, n_runs)) / np.sqrt(5 / 3)
                if fat
                else persistent(rng, n_times, rho, n_runs)
            )
            spreads = [cosines.sharpe_spread(one + 0.05) for one in noise.T]
            found = [s.estimates()[0] for s in spreads]
            yield coverage_row("Sharpe ratio", f"T={n_times}, {name}, 0.05 a period", found, 0.05)
    truth_of = risk_statistics(
        np.random.default_rng(1).standard_t(5, size=2_000_000) + 0.1,
        periods_per_year=1,
        cagr=0.0,
        max_drawdown=0,
        min_block=2e6,
    )
    rng = np.random.default_rng(2)
    rows = [
        risk_statistics(one, periods_per_year=1, cagr=0.0, max_drawdown=0, exposure_T=np.abs(rng.normal(size=1000)))
        for one in rng.standard_t(5, size=(n_runs, 1000)) + 0.1
    ]
    for name in ("sortino", "omega", "tail_ratio", "value_at_risk", "cvar"):
        yield coverage_row(name, "T=1000, Student 5", [r[name] for r in rows], truth_of[name].value)
    truth = 0.1 / np.sqrt(2 / np.pi)
    yield coverage_row(
        "exposure_adjusted_return", "T=1000, Student 5", [r["exposure_adjusted_return"] for r in rows], truth
    )


@dataclass(frozen=True)
class Market:
    """Forecasts of overlapping labels: score [T, S], outcome y [T, S], strength of the score."""

    score: Array
    y: Array
    strength: float


def market(rng: np.random.Generator, n_times: int, horizon: int, n_names: int, strength: float = 0.3) -> Market:
    """Outcomes y = 1 where strength * score + noise > 0; both overlap, half of both is common."""
    share = np.sqrt(0.5) if n_names > 1 else 0.0
    parts = []
    for _ in range(2):
        common = overlapping(rng, n_times, horizon, 1)
        parts.append(share * common + np.sqrt(1 - share**2) * overlapping(rng, n_times, horizon, n_names))
    score, noise = parts
    return Market(score, (strength * score + noise > 0).astype(int), strength)


def truths(strength: float, overconfidence: float) -> dict[str, float]:
    """Log-loss, skill, AUC, Brier score and calibration error of forecasts Phi(overconfidence * strength * score)."""
    score = np.linspace(-8, 8, 160_001)
    mass = stats.norm.pdf(score) / stats.norm.pdf(score).sum()
    true, reported = stats.norm.cdf(strength * score), stats.norm.cdf(overconfidence * strength * score)
    loss = -(mass * (true * np.log(reported) + (1 - true) * np.log1p(-reported))).sum()
    up, down = mass * true / 0.5, mass * (1 - true) / 0.5
    gaps = np.bincount(np.minimum((reported * 10).astype(int), 9), weights=mass * (reported - true), minlength=10)
    return {
        "log_loss": float(loss),
        "skill_over_base_rate": float(1 - loss / np.log(2)),
        "skill_beyond_level": float(1 - loss / np.log(2)),  # by symmetry the best shift of these forecasts is none
        "auc": float((up * (np.cumsum(down) - down / 2)).sum()),
        "brier": float((mass * (true * (1 - reported) ** 2 + (1 - true) * reported**2)).sum()),
        "ece": float(np.abs(gaps).sum()),
    }


def forecast_coverage(n_runs: int = 600) -> Iterator[Row]:
    """Log-loss, skill, AUC, Brier score and calibration error of single series and of panels."""
    settings = (
        (500, 1, 1, 1.0),
        (500, 20, 1, 1.0),
        (2000, 20, 1, 1.0),
        (500, 20, 20, 1.0),
        (1000, 5, 5, 1.0),
        (1000, 5, 5, 3.0),
    )
    for n_times, horizon, n_names, overconfidence in settings:
        rng, truth = np.random.default_rng([n_times, horizon, n_names]), truths(0.3, overconfidence)
        found: dict[str, list[Estimate]] = {name: [] for name in truth}
        for run in range(n_runs):
            one = market(rng, n_times, horizon, n_names)
            proba = stats.norm.cdf(overconfidence * one.strength * one.score.ravel())
            time = np.repeat(np.arange(n_times), n_names)
            reported = evaluate(proba, one.y.ravel(), 0.5, time_N=time, min_block=horizon, n_draws=400, seed=run)
            for name, kept in found.items():
                kept.append(Estimate(**reported[name]))
        calibrated = "" if overconfidence == 1 else f", {overconfidence:g} times too confident"
        for name, kept in found.items():
            yield coverage_row(name, f"T={n_times}, H={horizon}, {n_names} names{calibrated}", kept, truth[name])


def paired_size(n_runs: int = 1000) -> Iterator[Row]:
    """Two equally good variants: how often the paired comparison calls one better."""
    for n_times, horizon in ((500, 1), (500, 20), (1000, 20), (2000, 60)):
        rng, p_values = np.random.default_rng([n_times, horizon]), []
        for run in range(n_runs):
            one = market(rng, n_times, horizon, 1)
            noisy = [one.score + 0.5 * overlapping(rng, n_times, horizon, 1) for _ in range(2)]
            losses = [log_losses(stats.norm.cdf(0.25 * s.ravel()), one.y.ravel()) for s in noisy]
            base, time = np.full(n_times, np.log(2)), np.arange(n_times)
            arms = {str(k): VariantLosses(time, loss[None], base, (0,)) for k, loss in enumerate(losses)}
            p_values.append(compare(arms, "0", min_block=horizon, n_draws=1000, seed=run).difference["1"].p)
        yield size_row("paired comparison", f"T={n_times}, H={horizon}", p_values)


def size_row(study: str, setting: str, p_values: list[float | None]) -> Row:
    known = [p for p in p_values if p is not None]
    return Row(
        study, setting, 0.05, float(np.mean(np.array(known) < 0.05)) if known else np.nan, len(known), len(p_values)
    )


def association_size(n_runs: int = 1000) -> Iterator[Row]:
    """A slow column and an overlapping event that know nothing of each other."""
    for n_times, horizon, n_names in ((500, 1, 1), (500, 20, 1), (2000, 20, 1), (500, 10, 10)):
        rng, p_values, lifts = np.random.default_rng([n_times, horizon, n_names]), [], []
        for _ in range(n_runs):
            one = market(rng, n_times, horizon, n_names, strength=0.0)
            time, event = np.repeat(np.arange(n_times), n_names), one.y.ravel() == 1
            (reported,) = associations(one.score.reshape(-1, 1), ("a",), event, time, min_block=horizon)
            p_values.append(reported.p_holm)
            symbol = np.tile(np.arange(n_names), n_times)
            lifts.append(event_lift(one.score.ravel() > 0.5, event, time, symbol, min_block=horizon).lift)
        setting = f"T={n_times}, H={horizon}, {n_names} names"
        yield size_row("association", setting, p_values)
        yield coverage_row("event lift", setting, lifts, 1.0)


def spa_size(n_runs: int = 2000) -> Iterator[Row]:
    """Ten trials no better than the benchmark, correlated by a half."""
    for n_times, rho in ((500, 0.0), (500, 0.3), (500, 0.6), (2000, 0.6)):
        rng, p_values = np.random.default_rng([n_times, int(10 * rho)]), []
        for run in range(n_runs):
            common, own = persistent(rng, n_times, rho, 1), persistent(rng, n_times, rho, 10)
            p_values.append(
                spa_test(np.sqrt(0.5) * (common + own), np.zeros(n_times), n_draws=500, seed=run).consistent
            )
        yield size_row("superior predictive ability", f"T={n_times}, 10 trials, autoregression {rho:g}", p_values)


def ranking_coverage(n_runs: int = 500) -> Iterator[Row]:
    """Precision, lift and area under precision and recall of a rare event in a panel of 20 names."""
    measures: dict[str, Callable[..., Estimate]] = {
        "precision_at_k": lambda *a, **k: precision_at_k(*a, 2, **k),
        "lift_at_k": lambda *a, **k: lift_at_k(*a, 2, **k),
        "pr_auc": pr_auc,
    }  # fmt: skip

    def panel(rng: np.random.Generator, n_times: int, horizon: int) -> tuple[Array, Array, Array]:
        one = market(rng, n_times, horizon, 20)
        latent = 0.5 * one.score + overlapping(rng, n_times, horizon, 20)
        rare = latent > stats.norm.ppf(0.9) * np.sqrt(1.25)
        return one.score.ravel(), rare.ravel().astype(int), np.repeat(np.arange(n_times), 20)

    whole = panel(np.random.default_rng(0), 60_000, 1)
    truth = {name: _plain(measure, whole) for name, measure in measures.items()}
    for n_times, horizon in ((500, 5), (1000, 20)):
        rng = np.random.default_rng([n_times, horizon])
        found: dict[str, list[Estimate]] = {name: [] for name in measures}
        for _ in range(n_runs):
            sample = panel(rng, n_times, horizon)
            for name, measure in measures.items():
                found[name].append(measure(*sample, min_block=horizon))
        for name, kept in found.items():
            yield coverage_row(name, f"T={n_times}, H={horizon}, 20 names, 10 % events", kept, truth[name])


def _plain(measure: Callable[..., Estimate], sample: tuple[Array, Array, Array]) -> float:
    # a block as long as the record: the value alone, without its interval
    return float(measure(*sample, min_block=len(sample[0])).value or 0.0)


def wilson_coverage(n_runs: int = 0) -> Iterator[Row]:
    """Win rates and null counts: exact, by summing over all outcomes."""
    for n, rate in ((30, 0.5), (30, 0.3), (100, 0.5), (200, 0.05)):
        wins = np.arange(n + 1)
        bounds = [wilson_interval(int(k), n) for k in wins]
        held = np.array([low <= rate <= high for low, high in bounds])
        yield Row(
            "win rate (Wilson), exact",
            f"{n} trades, rate {rate}",
            0.95,
            float(stats.binom.pmf(wins, n, rate) @ held),
            n_runs or 1,
            n_runs or 1,
        )


def trades_of_accounts(
    rng: np.random.Generator, n_symbols: int, n_bars: int, alike: float, hold_bars: int, rate: float
) -> tuple[Array, tuple[Array, Array]]:
    """Results [M] and spans of trades without an edge: each symbol, when flat, enters at random and holds.

    alike: correlation of the symbols' returns. rate: chance of an entry at a bar.
    """
    common, own = rng.normal(size=(n_bars, 1)), rng.normal(size=(n_bars, n_symbols))
    path = np.cumsum(np.sqrt(alike) * common + np.sqrt(1 - alike) * own, axis=0)
    found = []
    for s in range(n_symbols):
        at = int(rng.geometric(rate))
        while at + hold_bars < n_bars:
            found.append((path[at + hold_bars, s] - path[at, s], at, at + hold_bars))
            at += hold_bars + int(rng.geometric(rate))
    result, start, end = np.array(found).T
    clock = np.datetime64("2020-01-01", "us") + np.arange(n_bars) * np.timedelta64(1, "h")
    return result, (clock[start.astype(int)], clock[end.astype(int)])


# symbols, bars, correlation, holding time, chance of an entry at a bar
ACCOUNTS = ((1, 4000, 0.0, 24, 0.05), (7, 4000, 0.5, 24, 0.05), (7, 4000, 0.8, 24, 0.02), (40, 1000, 0.3, 20, 0.2))


def win_rate_coverage(
    n_runs: int = 500, settings: tuple[tuple[int, int, float, int, float], ...] = ACCOUNTS
) -> Iterator[Row]:
    """The win rate of an account whose symbols rise and fall together."""
    for n_symbols, n_bars, alike, hold_bars, rate in settings:
        rng, kept = np.random.default_rng([n_symbols, n_bars, hold_bars]), []
        for _ in range(n_runs):
            kept.append(win_rate(*trades_of_accounts(rng, n_symbols, n_bars, alike, hold_bars, rate)))
        name = f"{n_symbols} symbols, correlation {alike:g}, {n_bars} bars, trades of {hold_bars}"
        yield coverage_row("win rate, trades open together", name, kept, 0.5)


# times, horizon, names, true slope
CALIBRATION = ((500, 1, 1, 1.0), (500, 20, 1, 1.0), (1000, 5, 5, 1.0), (1000, 5, 5, 0.5))


def calibration_coverage(
    n_runs: int = 400, settings: tuple[tuple[int, int, int, float], ...] = CALIBRATION
) -> Iterator[Row]:
    """Calibration slope and intercept of a logistic market; outcomes of neighbours agree where labels overlap."""
    for n_times, horizon, n_names, slope in settings:
        rng = np.random.default_rng([n_times, horizon, n_names, int(10 * slope)])
        found: dict[str, list[Estimate]] = {"calibration_slope": [], "calibration_intercept": []}
        for run in range(n_runs):
            score = 0.6 * overlapping(rng, n_times, horizon, n_names)
            luck = stats.norm.cdf(overlapping(rng, n_times, horizon, n_names))  # uniform, and overlapping as well
            y = (luck < 1 / (1 + np.exp(-slope * score))).astype(int)
            proba, time = 1 / (1 + np.exp(-score)), np.repeat(np.arange(n_times), n_names)
            reported = evaluate(proba.ravel(), y.ravel(), 0.5, time_N=time, min_block=horizon, n_draws=50, seed=run)
            for name, kept in found.items():
                kept.append(Estimate(**reported[name]))
        setting = f"T={n_times}, H={horizon}, {n_names} names, true slope {slope:g}"
        yield coverage_row("calibration slope", setting, found["calibration_slope"], slope)
        yield coverage_row("calibration intercept", setting, found["calibration_intercept"], 0.0)


def veto_coverage(n_runs: int = 400) -> Iterator[Row]:
    """What the page of an auditor prints: means of trades, gaps to placebos; no veto knows anything."""
    for n_days, horizon in ((400, 1), (1000, 5)):
        rng = np.random.default_rng([n_days, horizon])
        means, sharpes, gaps = [], [], []
        for _ in range(n_runs):
            trades = rng.poisson(1.0, (n_days, 2)).astype(float)
            gains = trades * overlapping(rng, n_days, horizon, 2)
            means += trade_means(gains, trades, min_block=horizon)[:1]
            returns = overlapping(rng, n_days, horizon, 6)
            record = DailyRecord(returns, returns, np.ones_like(returns))
            gap = paired_differences(
                record.columns(slice(0, 1)), record.columns(slice(1, 6)), periods_per_year=1, min_block=horizon
            )
            sharpes.append(gap.sharpe)
            gaps.append(gap.per_trade)
        setting = f"T={n_days}, H={horizon}"
        yield coverage_row("mean of trades", setting, means, 0.0)
        yield coverage_row("placebo gap, Sharpe", setting, sharpes, 0.0)
        yield coverage_row("placebo gap, per trade", setting, gaps, 0.0)


def lift_coverage(n_runs: int = 400, settings: tuple[tuple[int, int], ...] = ((400, 1), (1000, 5))) -> Iterator[Row]:
    """Precision of a veto that knows nothing beside that of equally many high scores that know nothing."""
    for n_times, horizon in settings:
        rng, lifts = np.random.default_rng([n_times, horizon]), []
        for _ in range(n_runs):
            paid, kept = (overlapping(rng, n_times, horizon) > 0 for _ in range(2))
            score, time = rng.normal(size=n_times), np.arange(n_times)
            lifts.append(Estimate(**precision_lift(paid, kept, score, time, min_block=horizon)["lift"]))
        yield coverage_row("precision lift", f"T={n_times}, H={horizon}", lifts, 0.0)


# times, horizon, names, autoregression of scores
RELIABILITY = (
    *((500, 1, 1, 0.0), (2000, 10, 1, 0.0), (2000, 10, 1, 0.95), (500, 10, 1, 0.95), (400, 20, 1, 0.98)),
    *((200, 20, 1, 0.98), (250, 5, 20, 0.0), (250, 5, 20, 0.9)),
)


def reliability_coverage(
    n_runs: int = 400, settings: tuple[tuple[int, int, int, float], ...] = RELIABILITY
) -> Iterator[Row]:
    """Observed rates of the reliability diagram's bins, calibrated forecasts, whose labels overlap."""
    for n_times, horizon, n_names, memory in settings:
        rng, held = np.random.default_rng([n_times, horizon, n_names, int(100 * memory)]), []
        share, time = np.sqrt(0.5) if n_names > 1 else 0.0, np.repeat(np.arange(n_times), n_names)
        for _ in range(n_runs):
            score = 1.2 * persistent(rng, n_times, memory, n_names)
            luck = share * overlapping(rng, n_times, horizon, 1)
            luck = stats.norm.cdf(luck + np.sqrt(1 - share**2) * overlapping(rng, n_times, horizon, n_names))
            proba = 1 / (1 + np.exp(-score))
            bins = reliability(proba.ravel(), (luck < proba).ravel(), time_N=time, min_block=float(horizon))
            held.append(np.mean([b["observed_low"] <= b["mean_predicted"] <= b["observed_high"] for b in bins]))
        names = f"{n_names} names" if n_names > 1 else "1 name"
        setting = f"T={n_times}, H={horizon}, {names}, memory of scores {memory:g}"
        # bins of one run share their labels: the error is that of the runs' means
        measured, error = float(np.mean(held)), float(np.std(held, ddof=1) / np.sqrt(n_runs))
        yield Row("reliability bins", setting, 0.95, measured, n_runs, n_runs, error)


def drift_coverage(n_runs: int = 100, rows: int = 1000) -> Iterator[Row]:
    """AUC of telling training from test rows where nothing drifts: features without and with memory."""
    for name, rho in (("independent rows", 0.0), ("autoregression 0.8", 0.8)):
        rng, found = np.random.default_rng(int(10 * rho)), []
        for run in range(n_runs):
            x = persistent(rng, rows + rows // 2, rho, 4)
            reported = adversarial_validation(x[:rows], x[rows:], ("a", "b", "c", "d"), seed=run)
            found.append(Estimate(reported.auc, *reported.interval))
        yield coverage_row("drift AUC", f"{rows:,} and {rows // 2} rows, {name}", found, 0.5)


def short_coverage(
    n_runs: int = 400, settings: tuple[tuple[int, int], ...] = ((100, 1), (250, 5), (400, 20))
) -> Iterator[Row]:
    """AUC and area under precision and recall on records of few blocks."""
    for n_times, horizon in settings:
        rng, truth = np.random.default_rng([n_times, horizon]), truths(0.3, 1.0)["auc"]
        aucs, areas, big = [], [], market(np.random.default_rng(0), 60_000, 1, 1)
        area = float(pr_auc(big.score.ravel(), big.y.ravel(), np.zeros(60_000)).value or 0.0)  # one time: no interval
        for run in range(n_runs):
            one = market(rng, n_times, horizon, 1)
            proba, y, time = stats.norm.cdf(0.3 * one.score.ravel()), one.y.ravel(), np.arange(n_times)
            aucs.append(
                Estimate(**evaluate(proba, y, 0.5, time_N=time, min_block=horizon, n_draws=50, seed=run)["auc"])
            )
            areas.append(pr_auc(one.score.ravel(), y, time, min_block=horizon))
        yield coverage_row("auc", f"T={n_times}, H={horizon}, 1 names", aucs, truth)
        yield coverage_row("pr_auc", f"T={n_times}, H={horizon}, 1 name, half events", areas, area)


STUDIES: dict[str, Callable[..., Iterator[Row]]] = {
    "deflation": deflation_size,
    "means": mean_coverage,
    "dependent_means": dependent_mean_coverage,
    "sharpe": sharpe_coverage,
    "forecasts": forecast_coverage,
    "paired": paired_size,
    "association": association_size,
    "spa": spa_size,
    "ranking": ranking_coverage,
    "wilson": wilson_coverage,
    "win_rate": win_rate_coverage,
    "calibration": calibration_coverage,
    "veto": veto_coverage,
    "lift": lift_coverage,
    "reliability": reliability_coverage,
    "drift": drift_coverage,
    "short": short_coverage,
}
