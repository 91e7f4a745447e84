"""Settings of a sweep: space, sampler, pruner, inner folds, seeds and objectives."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from tradsys.core.bounds import is_within
from tradsys.core.errors import nearest
from tradsys.core.headline import HEADLINE
from tradsys.core.plain_data import Config
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.research.sweeps.search_space import SearchSpace, SweepError

SAMPLERS = ("tpe", "cmaes", "gp", "random", "grid")
PRUNERS = ("hyperband", "median", "racing", "none")
OBJECTIVES = ("skill", "stability")


@dataclass(frozen=True, eq=False)
class SweepSettings:
    """Settings of a sweep, built from conf/sweep.

    space: path -> range, see `search_space.Parameter`. inner: purged folds of the outer split's training and validation
    samples. seeds: each fold is fitted under each. objectives: [skill], beyond the level, or [skill,
    stability] for a Pareto front.
    confidence: of the one-sided lower bound that selects the winner. failed_skill: value of a fit that failed or ended
    in NaN. n_startup: random trials before a sampler learns. zoom: refine another study's best region instead of
    `space`. top_share: share of its trials, the best ones, that span the region. stacked: whether the fits of a trial
    train their nets as stacks, which moves a skill by no more than 1e-5: None where that is faster, True wherever it is
    possible, False never. stacked_trials: trials that a worker runs at once, those of one shape in one stack; None
    for as many as fill it, up to n_startup; 1 for one after another.
    """

    inner: Splitter
    space: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "tpe"
    pruner: str = "median"
    seeds: Sequence[int] = (101, 102)
    objectives: Sequence[str] = ("skill",)
    confidence: float = 0.95
    failed_skill: float = -1.0
    n_startup: int = 10
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    zoom: bool = False
    top_share: float = 0.25
    stacked: bool | None = None
    stacked_trials: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                raise SweepError(
                    f"sweep: {name}={value!r}; {nearest(str(value), known)}; known are {', '.join(known)}; fix "
                    f"sweep.{name}"
                )
        if tuple(self.objectives) not in (OBJECTIVES[:1], OBJECTIVES):
            raise SweepError(
                f"sweep: objectives={list(self.objectives)}; a sweep maximises skill, or skill and stability; set "
                "sweep.objectives=[skill] or [skill,stability]"
            )
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise SweepError(
                "sweep: sampler=cmaes with two objectives; it optimises one; use sweep.sampler=tpe, gp or random"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise SweepError(
                f"sweep: seeds={list(self.seeds)}; a sweep needs at least one seed, each once; set sweep.seeds"
            )
        if not (0.5 <= self.confidence < 1 and 0 < self.top_share < 1 and np.isfinite(self.failed_skill)):
            raise SweepError(
                f"sweep: confidence={self.confidence}, top_share={self.top_share}, "
                f"failed_skill={self.failed_skill}; confidence lies in [0.5, 1), top_share in (0, 1), "
                "failed_skill is finite; set them under sweep"
            )

        if not is_within(self.stacked_trials, "null or whole [1, inf)"):
            raise SweepError(
                f"sweep: stacked_trials={self.stacked_trials!r}; trials taken at once are a whole number from 1, or "
                "null for as many as fill a stack; set sweep.stacked_trials"
            )

    @property
    def parsed_space(self) -> SearchSpace:
        """The search space, parsed and checked on its own."""
        return SearchSpace.of(self.space)

    @property
    def most_trials(self) -> int | None:
        """Number of possible trials; None where a sampler never ends."""
        return len(self.parsed_space.grid()) if self.sampler == "grid" else None

    def digest(self, space: SearchSpace) -> str:
        """Digest of all that determines the trials and their scores."""
        inner = f"{type(self.inner).__name__}{sorted(vars(self.inner).items())}"
        rest = (self.sampler, self.pruner, dict(self.pruner_options), list(self.seeds), list(self.objectives))
        return digest_json([space.as_entries(), inner, *rest, self.failed_skill, self.n_startup, self.seed, HEADLINE])

    def sampler_of(self, place: int) -> BaseSampler:
        """The sampler for one slot of the study.

        Its draws depend on the study's history and the slot alone.
        """
        seed = int(np.random.default_rng([self.seed, place]).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self.sampler == "tpe":
                return TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=self.n_startup
                )
            if self.sampler == "cmaes":
                return CmaEsSampler(seed=seed, n_startup_trials=self.n_startup, warn_independent_sampling=False)
            if self.sampler == "gp":
                return GPSampler(seed=seed, n_startup_trials=self.n_startup, warn_independent_sampling=False)
            if self.sampler == "grid":
                return PartialFixedSampler(self._grid_point(place), RandomSampler(seed=seed))
            return RandomSampler(seed=seed)

    def _grid_point(self, place: int) -> Config:
        """The grid point of one slot; shuffled, so that a budget smaller than the grid is spread over it.

        Not Optuna's GridSampler: it gives a trial the point of its number, which differs from the slot for a retried
        trial, and it stops the study from inside `tell`, which is an error where trials are asked for.
        """
        points = self.parsed_space.grid()
        return points[np.random.default_rng(self.seed).permutation(len(points))[place % len(points)]]

    def pruner_of(self, most_steps: int) -> BasePruner:
        """The pruner for trials of at most so many steps.

        None with two objectives, where Optuna has no pruning. Racing compares folds, not single values, and is decided
        at their ends (`selection.out_of_race`).
        """
        if self.pruner in ("none", "racing") or len(self.objectives) > 1:
            return NopPruner()
        if self.pruner == "median":
            return MedianPruner(**{"n_startup_trials": self.n_startup, "n_min_trials": 3} | dict(self.pruner_options))
        # a fixed largest resource: Optuna's "auto" would take the first finished trial's, which may have stopped early
        return HyperbandPruner(**{"max_resource": most_steps} | dict(self.pruner_options))
