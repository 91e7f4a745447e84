"""The experiment that conf/train.yaml builds: one object per stage, nothing fitted yet."""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from time import perf_counter
from typing import Any, Self

from tradsys.core.bounds import check_bounds, is_within
from tradsys.core.errors import TradsysError, TrainingError
from tradsys.core.progress import stages as progress
from tradsys.core.protocols import Calibrator, Events, Labeller, Model, Splitter
from tradsys.evidence.sharpe import MIN_TRADES
from tradsys.features.feature_set import FeatureSet
from tradsys.labels.checked import check_label
from tradsys.market.universe import untraded_of, without_reference
from tradsys.models.boosting import Xgboost
from tradsys.models.supervisors.supervised import Regime
from tradsys.models.transforms import RobustScaler
from tradsys.portfolio.costs import Costs
from tradsys.samples.join import WEIGHTINGS
from tradsys.samples.weights import check_time_decay
from tradsys.serving.strategy import Profile, profiles_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Settings of the evaluation: draws, out-of-fold folds, least trades.

    n_placebos: placebo auditors without information that the auditor is compared with. cpcv: whether a cheap model is
    refitted for complete out-of-sample paths of combinatorial cross-validation; of cpcv_groups blocks of time, every
    choice of cpcv_test_groups is one fit.
    """

    n_draws: int = 500
    confidence: float = 0.95
    n_oof_folds: int = 4
    candidate_quantile: float = 0.5
    n_permutations: int = 3
    min_trades: int = 30
    n_placebos: int = 1000
    cpcv: bool = False
    cpcv_groups: int = 8
    cpcv_test_groups: int = 2

    def __post_init__(self) -> None:
        least = {"n_draws": 2, "n_oof_folds": 2, "n_permutations": 1, "min_trades": 1, "n_placebos": 1}
        rules = {name: f"whole [{k}, inf)" for name, k in least.items()}
        rules |= {"confidence": "(0, 1)", "candidate_quantile": "[0, 1)"}
        rules |= {"cpcv_groups": "whole [2, inf)", "cpcv_test_groups": f"whole [1, {self.cpcv_groups})"}
        check_bounds("evaluation", self, rules, "evaluation")

    @property
    def least_trades(self) -> int:
        """Closed trades below which a row shows no probability and no ratio.

        30, or `min_trades` where more are required.
        """
        return max(MIN_TRADES, self.min_trades)


@dataclass(frozen=True, eq=False)
class Experiment:
    """The experiment that conf/train.yaml builds.

    One object per stage, nothing fitted yet.
    events, regime, auditor: None for none; events never choose the symbol that the data hold for reference only.
    Without strategies a run is evaluated on its forecasts alone. weighting: of samples, as in
    `samples.join.make_samples`. time_decay: weight of the oldest training sample relative to the newest, in (-1, 1], 1
    for none; see `samples.weights.time_decay`.
    """

    data: Mapping[str, Any]
    features: FeatureSet
    labels: Labeller
    events: Events | None
    weighting: str
    split: Splitter
    transforms: RobustScaler
    model: Model
    baselines: Mapping[str, Model]
    calibration: Calibrator
    regime: Regime | None
    auditor: Xgboost | None
    strategy: Mapping[str, Profile]
    costs: Costs
    evaluation: Evaluation
    question: str
    seed: int
    time_decay: float = 1.0

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Self:
        """The experiment among the parts built from a command's config."""
        given = {**parts, "strategy": profiles_of(parts)}
        if lacking := [f.name for f in fields(cls) if f.name not in given and f.default is MISSING]:
            raise TradsysError(
                f"config: it lacks {', '.join(lacking)}, which every experiment has; leave '~{lacking[0]}' out"
            )
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given or f.default is MISSING})

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise TradsysError(
                f"config: weighting={self.weighting!r}; it is one of {', '.join(WEIGHTINGS)}; fix the override"
            )
        check_time_decay(self.time_decay)
        check_label(self.labels)
        self._check_own_parts()
        trainer = getattr(self.model, "trainer", None)
        if trainer is not None:
            # a missing device, or a precision it cannot train at, is refused before any data is read
            trainer.home()
        check_bounds("data", self.data, {"max_gap_minutes": "null or (0, inf]"}, "data")
        object.__setattr__(self, "events", without_reference(self.events, untraded_of(self.data["source"])))

    def _check_own_parts(self) -> None:
        """TrainingError unless models and regime state their lookback, and a regime the names of its states."""
        named = {"model": self.model, **{f"baselines.{k}": v for k, v in self.baselines.items()}, "regime": self.regime}
        for where, part in named.items():
            if part is not None and not is_within(rows := getattr(part, "lookback", None), "whole [1, inf)"):
                raise TrainingError(
                    f"{where}: {type(part).__name__}.lookback is {rows!r}; it is a whole number of rows from 1, the "
                    "decision row included; give the class one"
                )
        names = getattr(self.regime, "names", None)
        texts = names if isinstance(names, list | tuple) else ()
        if self.regime is not None and len({one for one in texts if isinstance(one, str)}) != max(1, len(texts)):
            raise TrainingError(
                f"regime: {type(self.regime).__name__}.names is {names!r}; it names each state, one text for each; "
                "give the class one"
            )

    @property
    def max_gap(self) -> timedelta | None:
        """Longest step between bars that windows, returns and barriers may span."""
        minutes = self.data["max_gap_minutes"]
        return None if minutes is None else timedelta(minutes=minutes)

    @property
    def lookback(self) -> int:
        """Rows that every model of the experiment needs.

        So all are evaluated on the same samples.
        """
        parts = (self.model, self.regime, *self.baselines.values())
        return max(m.lookback for m in parts if m is not None)


@dataclass
class Timings:
    """Seconds per stage, logged as they end.

    of: begins the name of a stage in the log, where several run beside each other.
    """

    of: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage; a stage that fails is not recorded."""
        began = perf_counter()
        with progress.stage(f"{self.of}{name}"):
            yield
        _return_free_memory()
        self.seconds[name] = perf_counter() - began
        LOG.info("%-22s %6.1f s", f"{self.of}{name}", self.seconds[name])


def _return_free_memory() -> None:
    """Returns what a stage freed to the system, where the C library can (glibc).

    It keeps freed arrays of up to 32 MB, and what the next stage asks for has other sizes. Source: malloc_trim(3).
    """
    with suppress(OSError, TypeError, AttributeError):  # no such function, or, on Windows, no such library
        ctypes.CDLL(None).malloc_trim(0)


def synthetic_note(data: Mapping[str, Any]) -> str | None:
    """Note on a synthetic market; None on real data."""
    return synthetic_note_of(data["source"].describe())


def synthetic_note_of(described: Mapping[str, Any]) -> str | None:
    """`synthetic_note` of a source by its description."""
    return str(described.get("note") or "a market that was made up") if described.get("synthetic") else None
