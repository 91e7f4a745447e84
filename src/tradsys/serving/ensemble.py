"""A pool of fitted members loaded from a bundle's files, without torch.

Legend: N samples, K members, S regime states, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from tradsys.core.bounds import is_within
from tradsys.core.errors import BundleError
from tradsys.core.received import inside, read_json, refused_in_one_line
from tradsys.core.tables import Array, FeatureTable
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.calibrators import calibrator_from_json
from tradsys.models.ensembles.compose import Calibrated, Scaled
from tradsys.models.ensembles.pool_weights import mean_and_spread
from tradsys.models.ensembles.stacked import BASE
from tradsys.models.linear import LogisticRegression
from tradsys.models.market_regime import MarketRegime, regime_from_json
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.supervised import SupervisedRegime
from tradsys.models.transforms import RobustScaler

FILE = "ensemble.json"
FIX = "export it again"
ROUNDING = 1e-6  # of a sum of weights
LONGEST = 100_000  # largest plausible lookback in rows
POOLS = ("average", "stacked", "regime_weighted", "regime_pooled")


class Member(Protocol):
    """Protocol of a member of a pool."""

    @property
    def lookback(self) -> int:
        """Rows per window."""

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]."""


def read_logistic(path: Path) -> Member:
    """A logistic regression with its scaler, from the exported JSON {scaler, model}."""
    reported = read_json(path, FIX)
    with refused_in_one_line(f"logistic {path.name}", FIX):
        return _logistic(reported)


def _logistic(reported: Mapping[str, Any]) -> Member:
    model = LogisticRegression.from_json(reported["model"])
    if not is_within(model.lookback, "whole [1, inf)") or not np.isfinite(model.coef_).all():  # type: ignore[arg-type]
        raise BundleError(f"logistic: lookback={model.lookback!r}, or coefficients that are not finite; {FIX}")
    return model if reported["scaler"] is None else Scaled.of(RobustScaler.from_json(reported["scaler"]), model)


def read_graph(path: Path) -> Member:
    """A net, scaler and calibrator as one graph."""
    from tradsys.models.onnx_runtime import OnnxModel  # noqa: PLC0415 - onnxruntime, only where a member is a graph

    return OnnxModel.load(path)


LOADERS: dict[str, Callable[[Path], Member]] = {
    "onnx": read_graph,
    "logistic": read_logistic,
    "lightgbm": LightGbm.load,
    "xgboost": Xgboost.load,
}


@dataclass(frozen=True, eq=False)
class ServedPool:
    """Members with their weights [K], or [S, K] where a regime mixes them.

    base_rate [C] is the last one or None.
    """

    members: Mapping[str, Member]
    weights: Array
    base_rate: Array | None
    regime: HmmRegime | MarketRegime | SupervisedRegime | None
    lookback: int

    @classmethod
    def of(cls, reported: Mapping[str, Any], folder: Path, n_features: int) -> Self:
        """The pool described by a part of ensemble.json.

        Raises BundleError where a member is missing.
        """
        members = {one["name"]: _member(one, folder, n_features) for one in reported["members"]}
        names = [*members, *([BASE] if reported["base_rate"] else [])]
        vectors = reported["state_weights"] or [reported["weights"]]
        for vector in vectors:
            if set(vector) != set(names):
                raise BundleError(
                    f"bundle {folder}: {FILE} has weights for {sorted(vector)}, its members are {sorted(names)}; "
                    "each needs "
                    "one weight; export it again"
                )
        weights = np.array([[vector[name] for name in names] for vector in vectors])
        for shares in (*vectors, *([dict(enumerate(reported["base_rate"]))] if reported["base_rate"] else [])):
            _check_shares(folder, shares)
        regime = regime_from_json(reported["regime"]) if reported["regime"] else None
        # members without weight are not served, so the pool may have been fitted on longer windows than these read
        longest = max((reader.lookback for reader in (*members.values(), *([regime] if regime else []))), default=1)
        if not is_within(reported["lookback"], f"whole [{longest}, {LONGEST}]"):
            raise BundleError(
                f"bundle {folder}: {FILE} reads {reported['lookback']!r} rows, its members and regime {longest}; {FIX}"
            )
        return cls(
            members=members,
            weights=weights if reported["state_weights"] else weights[0],
            base_rate=np.asarray(reported["base_rate"]) if reported["base_rate"] else None,
            regime=regime,
            lookback=int(reported["lookback"]),
        )

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C], the pool."""
        return self.mean_and_spread(table, rows)[0]

    def mean_and_spread(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """The pool [N, C] and its members' weighted standard deviation about it [N, C]."""
        each = [member.predict_proba(table, rows) for member in self.members.values()]
        if self.base_rate is not None:
            each.append(np.tile(self.base_rate, (len(rows), 1)))
        belief_NS = None if self.regime is None else self.regime.predict_proba(table, rows)
        return mean_and_spread(self.weights, each, belief_NS)


@dataclass(frozen=True, eq=False)
class ServedEnsemble:
    """A bundle's primary model that is a pool, with its calibrator."""

    pool: ServedPool
    calibrator: Any

    @classmethod
    def load(cls, folder: Path, calibrator: Mapping[str, Any], n_features: int) -> Self:
        """Reads ensemble.json and its members.

        Raises BundleError for an unknown kind or inconsistent parts.
        """
        reported = read_json(folder / FILE, FIX)
        pool = _member(reported, folder, n_features)
        if not isinstance(pool, ServedPool):
            raise BundleError(
                f"bundle {folder}: {FILE} is of kind {reported['kind']!r}, not one of {list(POOLS)}; export it again"
            )
        return cls(pool, calibrator_from_json(calibrator))

    @property
    def lookback(self) -> int:
        """Rows per window."""
        return self.pool.lookback

    def predict(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """Raw scores and calibrated probabilities, float64 [N, C] each."""
        score, probability, _ = self.predict_with_spread(table, rows)
        return score, probability

    def predict_with_spread(self, table: FeatureTable, rows: Array) -> tuple[Array, Array, Array]:
        """As `predict`, and the members' spread [N, C]."""
        score, spread = self.pool.mean_and_spread(table, rows)
        return score, self.calibrator.apply(score), spread


def _check_shares(folder: Path, shares: Mapping[Any, Any]) -> None:
    """BundleError unless these are numbers >= 0 that sum to one: so that the pool is a probability."""
    numbers = [value for value in shares.values() if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(shares) or not numbers or min(numbers) < 0 or not abs(sum(numbers) - 1) <= ROUNDING:
        raise BundleError(
            f"bundle {folder}: {FILE} has weights {dict(shares)}; they must be >= 0 and sum to one; {FIX}"
        )


def _member(reported: Mapping[str, Any], folder: Path, n_features: int) -> Member:
    """One member, itself a pool or a file beside ensemble.json."""
    kind = reported.get("kind") if isinstance(reported, dict) else None
    if not isinstance(kind, str):
        raise BundleError(f"bundle {folder}: a member of {FILE} has no kind; {FIX}")
    if kind in POOLS:
        return _calibrated(ServedPool.of(reported, folder, n_features), reported)
    if kind not in LOADERS:
        raise BundleError(
            f"bundle {folder}: member {reported.get('name')!r} is of kind {kind!r}, not one of {[*LOADERS, *POOLS]}; "
            "update tradsys"
        )
    path = inside(folder, reported["file"])
    if not path.is_file():
        raise BundleError(f"bundle {folder}: {FILE} names the file {path.name[:60]!r}, which is not there; {FIX}")
    member = LOADERS[kind](path)
    reads = getattr(member, "n_features", n_features)  # of a graph alone
    if (member.lookback, reads) != (reported["lookback"], n_features):
        raise BundleError(
            f"bundle {folder}: {path.name} reads [{member.lookback}, {reads}], {FILE} and card state "
            f"[{reported['lookback']}, {n_features}]; export it again"
        )
    return _calibrated(member, reported)


def _calibrated(member: Member, reported: Mapping[str, Any]) -> Member:
    """The member with its calibrator, if it has one."""
    if not reported.get("calibrator"):
        return member
    return Calibrated.of(member, calibrator_from_json(reported["calibrator"]))  # type: ignore[arg-type]
