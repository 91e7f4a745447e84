"""Paired comparison of models: skills of several variants, their differences, and the record needed to separate them.

A measured difference is random in two ways: by the evaluated stretch of time, and by the seed of a fit.
Every interval here includes both. Time enters by slow cosines, the same for all variants (`cosines`). Seeds are not
resampled: of three seeds, resampling sees two thirds of their variance and none of the error of that variance, so
its intervals would be far too narrow. Instead each draw shifts the mean over seeds by a Student-t multiple of their own
deviations, which is exact where seed noise is normal.
Legend: N samples, S seeds, T distinct times, D draws, A variants.
Sources: Lazarus, Lewis, Stock & Watson 2018 (time); Student 1908 (the mean of few normal values); Holm 1979.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.cosines import spread
from tradsys.evidence.multiple_testing import holm

MOST_SEEDS = 1000  # upper limit of a practical number of seeds
DUST = 1e-10  # of a skill: matrix products round equal columns differently, and equal losses must differ by nothing


@dataclass(frozen=True, eq=False)
class VariantLosses:
    """Log-losses of one variant on its out-of-sample forecasts, by sample.

    At the level of the samples, see `skill.levelled_losses`. time [N]: decision times, any order, several samples may
    share one. losses_SN [S, N]: one row per seed. base_N [N]: of the best constant at that level. seeds: S names of the
    rows. Raises DataError on shapes that do not fit or values that are not finite.
    """

    time: Array
    losses_SN: Array
    base_N: Array
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        n = len(self.time)
        if self.losses_SN.shape != (len(self.seeds), n) or self.base_N.shape != (n,) or not n or not self.seeds:
            raise DataError(
                f"paired: losses {self.losses_SN.shape}, base {self.base_N.shape} for {len(self.seeds)} seeds and "
                f"{n} times; losses are [S, N], base [N], at least one of each; align them first"
            )
        if not (np.isfinite(self.losses_SN).all() and np.isfinite(self.base_N).all()):
            raise DataError("paired: a loss is not finite; forecasts must be probabilities; see evidence.log_losses")

    @property
    def skill_S(self) -> Array:
        """Skill beyond the level of each seed [S].

        1 - mean loss / mean loss of the best constant.
        """
        return 1 - self.losses_SN.mean(axis=1) / self.base_N.mean()


@dataclass(frozen=True)
class Needed:
    """What would make a difference significant, if it were as large as measured.

    n_seeds: of each variant, on the same record; None where no number of seeds is enough, and then `times_the_record`
    states how many times longer the record would have to be even with endless seeds.
    """

    n_seeds: int | None = None
    times_the_record: float | None = None


@dataclass(frozen=True, eq=False)
class Difference:
    """Skill of a variant minus that of its reference; positive is better.

    The reference is the study's, or the variant's `against`. p: two-sided, of no difference. p_holm: the same after
    Holm over all differences of the study. var_time: variance of the mean difference over stretches of time. var_seed:
    variance of one seed's difference, None where neither variant has two seeds. needed: None where the interval already
    leaves zero out, or there is no interval.
    """

    estimate: Estimate
    p: float | None
    p_holm: float | None
    var_time: float | None
    var_seed: float | None
    needed: Needed | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Skill, rank and difference to the reference of every variant.

    rank: 1 the best, equal where intervals do not separate. block_length: of one effective block, in distinct times.
    reason: why there are no intervals, None where there are.
    """

    skill: Mapping[str, Estimate]
    difference: Mapping[str, Difference]
    rank: Mapping[str, int]
    block_length: float
    n_times: int
    reason: str | None


def compare(
    variants: Mapping[str, VariantLosses],
    reference: str,
    *,
    against: Mapping[str, str] | None = None,
    min_block: float = 1.0,
    n_draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Skills, paired differences to the reference and ranks, on one set of draws.

    variants: need not cover the same samples; time is the union of theirs. against: rival of a variant
    where that is not the reference. min_block: in distinct times, at least as many as one label overlaps. Variants with
    the same seeds share their draws of seeds, since a seed means the same initial weights and order in both. Raises
    DataError for fewer than two variants or an unknown rival.
    """
    rival = {name: (against or {}).get(name, reference) for name in variants if name != reference}
    unknown = sorted({reference, *rival.values()} - set(variants))
    if len(variants) < 2 or unknown or any(name == other for name, other in rival.items()):
        raise DataError(
            f"paired: variants {sorted(variants)}, reference {reference!r}, unknown {unknown}; at least two variants, "
            "each compared with another of them"
        )
    clock = np.unique(np.concatenate([variant.time for variant in variants.values()]))
    sums = {name: _sums(variant, clock) for name, variant in variants.items()}
    n_columns = sum(columns.shape[1] for columns in sums.values())
    found = spread(  # a product for each variant: within one of all, equal columns could be rounded apart
        lambda weight_dT: _skills(np.concatenate([weight_dT @ c for c in sums.values()], axis=1), sums),
        len(clock), _gains(sums, rival), min_block=min_block, cells=n_columns,
    )  # fmt: skip
    block, reason = found.block_length, found.reason
    value = {name: float(variant.skill_S.mean()) for name, variant in variants.items()}
    if reason is not None:
        skill = {name: bootstrap.estimate(v, None, reason=reason) for name, v in value.items()}
        gaps = {
            name: Difference(bootstrap.estimate(value[name] - value[other], None, reason=reason), *[None] * 5)
            for name, other in rival.items()
        }
        return Comparison(skill, gaps, dict.fromkeys(variants, 1), block, len(clock), reason)
    drawn = _by_variant(found.draws(n_draws, seed=seed), sums)
    error = {name: _by_variant(found.slope_BM, sums)[name].mean(axis=1) for name in sums}
    weights = {
        variant.seeds: seed_weights(len(variant.seeds), n_draws, seed=seed + 1 + k)
        for k, variant in _by_seeds(variants)
    }
    both = {name: (drawn[name] * weights[variant.seeds]).sum(axis=1) for name, variant in variants.items()}
    skill = {name: bootstrap.estimate(value[name], both[name], confidence) for name in variants}
    gaps = {
        name: _difference(
            variants[name], variants[other], _gap(error[name], error[other]), _gap(both[name], both[other]), confidence
        )
        for name, other in rival.items()
    }
    return Comparison(skill, _adjusted(gaps), _ranks(skill), block, len(clock), None)


def seed_weights(n_seeds: int, n_draws: int, *, seed: int) -> Array:
    """Weights [D, S] that sum to one and spread a mean over seeds.

    Under them it is distributed as Student's t. With values x_S of mean m and deviation s (ddof 1), the draws `weights
    @ x_S` follow m + s / sqrt(S) * t with S - 1 degrees of freedom: normal multipliers of the deviations from m, over
    the square root of a chi-square share. One seed has weight one: its variance is unknown.
    """
    if n_seeds < 1:
        raise DataError(f"paired: {n_seeds} seeds; there is at least 1; pass the variant's number of seeds")
    if n_seeds == 1:
        return np.ones((n_draws, 1))
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((n_draws, n_seeds))
    centred = normal - normal.mean(axis=1, keepdims=True)
    shrink = np.sqrt((n_seeds - 1) / rng.chisquare(n_seeds - 1, (n_draws, 1)))
    return 1 / n_seeds + centred * shrink / np.sqrt(n_seeds * (n_seeds - 1))


def needed(difference: float, var_time: float, var_seed: float, confidence: float = 0.95, n_now: int = 1) -> Needed:
    """Record length or number of seeds at which `difference` excludes zero.

    That is, its interval would. The half-width squared is z^2 var_time + t^2_{n-1} var_seed / n with n seeds; the
    result is the smallest n that brings it below the difference. Where time alone is too wide, z^2 var_time /
    difference^2 times the record would be needed, as var_time falls with its length. n_now: seeds that were not enough;
    without seed noise only the record can grow.
    """
    if not np.isfinite([difference, var_time, var_seed]).all() or min(var_time, var_seed) < 0:
        raise DataError(
            f"paired: difference {difference}, variances {var_time} and {var_seed}; all are finite, variances >= 0; "
            "leave out what was not measured"
        )
    z = special.ndtri(0.5 + confidence / 2)
    if difference == 0:
        return Needed()
    room = difference**2 - z**2 * var_time
    if room <= 0 or var_seed == 0:
        return Needed(times_the_record=float(z**2 * var_time / difference**2))
    # percentiles of draws and this formula differ a little: exclude the number that was just not enough
    counts = np.arange(max(2, n_now + 1), MOST_SEEDS + 1)
    enough = special.stdtrit(counts - 1, 0.5 + confidence / 2) ** 2 * var_seed / counts < room
    return Needed(n_seeds=int(counts[enough.argmax()])) if enough.any() else Needed(n_seeds=MOST_SEEDS)


def decisions_within(time: Array, horizon: np.timedelta64) -> int:
    """Most distinct decision times within one horizon, at least 1.

    It measures how far labels overlap.
    """
    moments = np.unique(time)
    if not len(moments):
        raise DataError("paired: no decision time; at least one is needed; give data of the span")
    return int((np.searchsorted(moments, moments + horizon, side="left") - np.arange(len(moments))).max())


def p_value(draws_D: Array) -> float:
    """Two-sided p-value of zero from draws around an estimate.

    Twice the share beyond zero, never below 2 / (D + 1).
    """
    finite = draws_D[np.isfinite(draws_D)]
    least = min((finite <= 0).sum(), (finite >= 0).sum())
    return float(min(1.0, 2 * (1 + least) / (len(finite) + 1)))


def _by_seeds(variants: Mapping[str, VariantLosses]) -> list[tuple[int, VariantLosses]]:
    """One variant for each distinct tuple of seeds, numbered; variants of other seeds are drawn independently."""
    first: dict[tuple[int, ...], VariantLosses] = {}
    for variant in variants.values():
        first.setdefault(variant.seeds, variant)
    return list(enumerate(first.values()))


def _sums(variant: VariantLosses, clock: Array) -> Array:
    """Per time of the clock: base losses, then each seed's losses, [T, 1 + S]; zero where the variant has no sample."""
    code = np.searchsorted(clock, variant.time)
    rows = (variant.base_N, *variant.losses_SN)
    return np.stack([np.bincount(code, weights=row, minlength=len(clock)) for row in rows], axis=1)


def _gains(sums: Mapping[str, Array], rival: Mapping[str, str]) -> Array:
    """The series that determine the dependence: gains over the base, and over the rival."""
    gain = {name: s[:, 1:].mean(axis=1) - s[:, 0] for name, s in sums.items()}
    return np.stack([*gain.values(), *(gain[name] - gain[other] for name, other in rival.items())], axis=1)


def _skills(summed_dM: Array, sums: Mapping[str, Array]) -> Array:
    """Skill of every seed of every variant [d, all seeds] from weighted sums."""
    out = []
    for part in _split(summed_dM, [s.shape[1] for s in sums.values()]):
        out.append(1 - part[:, 1:] / np.where(part[:, :1] > 0, part[:, :1], np.nan))
    return np.concatenate(out, axis=1)


def _by_variant(values_DM: Array, sums: Mapping[str, Array]) -> dict[str, Array]:
    """Columns of all seeds of all variants, by variant [D, S]."""
    return dict(zip(sums, _split(values_DM, [s.shape[1] - 1 for s in sums.values()]), strict=True))


def _split(values_DM: Array, widths: list[int]) -> list[Array]:
    return np.split(values_DM, np.cumsum(widths)[:-1], axis=1)


def _gap(left: Array, right: Array) -> Array:
    """left - right, exactly zero where no more than rounding is between them."""
    gap = left - right
    return np.where(np.abs(gap) <= DUST, 0.0, gap)


def _difference(
    variant: VariantLosses, against: VariantLosses, slope_B: Array, both_D: Array, confidence: float
) -> Difference:
    value = float(variant.skill_S.mean() - against.skill_S.mean())
    found = bootstrap.estimate(value, both_D, confidence)
    var_time = float((slope_B**2).mean())
    var_seed = _seed_variance(variant, against)
    shown = found.low is None or found.high is None or found.low > 0 or found.high < 0
    n_now = max(len(variant.seeds), len(against.seeds))
    more = None if shown else needed(value, var_time, var_seed or 0.0, confidence, n_now)
    p = None if found.low is None else p_value(both_D)
    return Difference(found, p, None, var_time, var_seed, more)


def _seed_variance(variant: VariantLosses, against: VariantLosses) -> float | None:
    """Variance of the difference over seeds: of the pairs where seeds are shared, else the sum of both."""
    if variant.seeds == against.seeds:
        return float((variant.skill_S - against.skill_S).var(ddof=1)) if len(variant.seeds) > 1 else None
    known = [a.skill_S.var(ddof=1) for a in (variant, against) if len(a.seeds) > 1]
    return float(sum(known)) if known else None


def _adjusted(gaps: Mapping[str, Difference]) -> dict[str, Difference]:
    known = [name for name, gap in gaps.items() if gap.p is not None]
    held = holm(np.array([gaps[name].p for name in known])).tolist() if known else []
    adjusted: dict[str, float] = dict(zip(known, held, strict=True))
    return {
        name: Difference(g.estimate, g.p, adjusted.get(name), g.var_time, g.var_seed, g.needed)
        for name, g in gaps.items()
    }


def _ranks(skill: Mapping[str, Estimate]) -> dict[str, int]:
    """1 + number of variants whose interval lies completely above this one's."""
    return {
        name: 1 + sum(o.low is not None and e.high is not None and o.low > e.high for o in skill.values())
        for name, e in skill.items()
    }
