"""The bundle: the fitted artefact that turns bars into probabilities. Needs no torch.

Only the libraries of a bundle's own parts are imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import polars as pl

from tradsys.core.clock import Moment, utc64
from tradsys.core.errors import BundleError, DataError
from tradsys.core.extensions import check_foreign, has_part
from tradsys.core.masking import masked
from tradsys.core.plain_data import Config, Json
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_file, digest_json, write_json
from tradsys.core.tables import ROWS_AT_ONCE, Array, FeatureTable
from tradsys.features.feature_set import FeatureSet
from tradsys.features.fracdiff import FracDiff
from tradsys.features.registry import is_known
from tradsys.market.bars import check_bar_minutes, check_no_short_run, mark_gaps, utc_bars
from tradsys.market.true_range import atr
from tradsys.serving import exits
from tradsys.serving.card import FIX, FORMAT, verified_card

if TYPE_CHECKING:
    from tradsys.models.boosting import LightGbm, Xgboost
    from tradsys.models.market_regime import MarketRegime
    from tradsys.models.supervisors.supervised import Regime

LOG = logging.getLogger(__name__)
LEVELS = ("score", "probability", "quantile")
DRIFT = "drift.json"  # reference data for live bars; bundles of earlier versions and of short spans have none


def _is_at_hand(name: str) -> bool:
    """Whether a foreign part of a card is installed: a feature, or a label, which serving itself never uses."""
    return is_known(name) or has_part("labels", name)


class Primary(Protocol):
    """The part of a bundle that scores a window."""

    @property
    def lookback(self) -> int:
        """Rows per window."""

    def predict(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """Raw scores and calibrated probabilities, float64 [N, C] each."""


@dataclass(frozen=True, eq=False)
class Boosted:
    """A boosted primary model with its calibrator; it reads unscaled features."""

    model: LightGbm | Xgboost
    calibrator: Any

    @property
    def lookback(self) -> int:
        """Rows per window."""
        return self.model.lookback

    def predict(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """Raw scores and calibrated probabilities, float64 [N, C] each."""
        score = self.model.predict_proba(table, rows)
        return score, self.calibrator.apply(score)


def seal(folder: Path, card: Mapping[str, Any]) -> Json:
    """Writes card.json with the SHA-256 of every file and of itself.

    Files of the folder.
    """
    files = {p.name: digest_file(p) for p in sorted(folder.iterdir()) if p.name != "card.json"}
    body = masked({k: v for k, v in card.items() if k != "card_sha256"}) | {"format": FORMAT, "files": files}
    sealed = {**body, "card_sha256": digest_json(body)}
    write_json(folder / "card.json", sealed)
    return sealed


@dataclass(frozen=True, eq=False)
class Bundle:
    """Features, model, regime, auditor and card of one trained run.

    Loaded from a folder with matching hashes.
    card: provenance of the bundle and its metrics. valid_scores [M]: raw P(1) on validation rows,
    sorted, for thresholds that are quantiles.
    """

    features: FeatureSet
    primary: Primary
    regime: Regime | MarketRegime | None
    auditor: Xgboost | None
    card: Json
    folder: Path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a bundle from its folder.

        Raises BundleError that names what is missing, altered or of another version.
        """
        folder = Path(path)
        card = verified_card(folder)
        with refused_in_one_line(f"bundle {folder}", FIX):
            return cls._of(folder, card)

    @classmethod
    def _of(cls, folder: Path, card: Json) -> Self:
        check_foreign(f"bundle {folder}", card.get("foreign", {}), _is_at_hand)
        features = FeatureSet.from_json(card["features"])
        if features.schema_hash() != card["schema_hash"] or list(features.names) != card["feature_names"]:
            raise BundleError(
                f"bundle {folder}: its features hash to {features.schema_hash()[:12]}, the model was trained on "
                f"{card['schema_hash'][:12]}; the feature code changed; use the code at {card['code_sha']} or retrain"
            )
        if "bar_minutes" not in card and any(isinstance(feature, FracDiff) for feature in features.features):
            raise BundleError(
                f"bundle {folder}: written by an earlier version with `ffd`, whose computation has changed since, "
                f"so the model would get other numbers; use the code at {card['code_sha']} or retrain"
            )
        regime_file, auditor_file = folder / "regime.json", folder / "auditor.json"
        return cls(
            features=features,
            primary=_load_primary(folder, card),
            regime=_load_regime(regime_file) if regime_file.exists() else None,
            auditor=_load_auditor(auditor_file) if auditor_file.exists() else None,
            card=card,
            folder=folder,
        )

    @property
    def history(self) -> int:
        """Bars that a live buffer needs so that its last prediction equals the batch's."""
        return int(self.card["history"])

    @property
    def bar_minutes(self) -> float | None:
        """Length of the bars the bundle was trained on.

        None where an earlier version did not measure it.
        """
        reported = self.card.get("bar_minutes", self.card["data_config"].get("bar_minutes"))
        return None if reported is None else float(reported)

    @property
    def levels(self) -> str:
        """How its run interprets the levels of strategy profiles: one of LEVELS.

        `score`, with a warning, where an earlier version did not store it.
        """
        stored = self.card.get("levels")
        if stored is not None and stored not in LEVELS:  # it goes into a configuration: nothing else may
            raise BundleError(f"bundle {self.folder}: levels={stored!r}; one of {', '.join(LEVELS)}; export it again")
        if stored is None:
            LOG.warning(
                "bundle %s: its card does not store how its run interpreted the levels of profiles, so they are read "
                "as raw "
                "scores; pass levels=quantile or levels=probability if the run did",
                self.folder,
            )
        return "score" if stored is None else str(stored)

    @property
    def max_gap(self) -> timedelta | None:
        """Longest step between bars within one segment; no window spans a longer one."""
        minutes = self.card["max_gap_minutes"]
        return None if minutes is None else timedelta(minutes=minutes)

    @cached_property
    def valid_scores(self) -> Array:
        """Raw P(1) on validation rows at 1,001 even quantiles, ascending."""
        return np.asarray(self.card["valid_score_quantiles"])

    @property
    def lookback(self) -> int:
        """Rows that the parts together need at a decision row."""
        return max(self.primary.lookback, self.regime.lookback if self.regime else 1)

    def data_config(self) -> Config:
        """The data config that the bundle was made from, as received.

        `config.trusted` builds its source.
        """
        return self.card["data_config"]

    def check_bar_length(self, bars: pl.DataFrame) -> None:
        """Raises DataError where bars have another length than in training."""
        if self.bar_minutes is not None:
            rule = "a bundle predicts on bars of the length it was trained on; give such data, or resample them"
            check_bar_minutes(bars, self.bar_minutes, f"bundle {self.folder}", rule)
            check_no_short_run(bars, self.bar_minutes, f"bundle {self.folder}", rule)

    def table(self, bars: pl.DataFrame) -> FeatureTable:
        """The features of these bars.

        Raises DataError where their length in minutes is not that of the bundle's own bars.
        """
        bars = utc_bars(bars, name=f"bundle {self.folder}")
        self.check_bar_length(bars)
        return self.features.table(bars)

    def predict(
        self,
        bars: pl.DataFrame,
        since: Moment | None = None,
        until: Moment | None = None,
        *,
        table: FeatureTable | None = None,
    ) -> pl.DataFrame:
        """Predictions of bars with a full window from `since` to `until`.

        One row each, sorted by (symbol, time). bars: time of any zone and unit, UTC without a zone; `time` of the
        answer is UTC. since, until: likewise. table: `self.features.table(bars)`, if it was computed already for a
        bundle of the same `schema_hash`.

        Columns: symbol, time, close, atr (price units), score (raw P(1)), probability (calibrated), and where the
        bundle has them side (of the position that both are about), mean (for a label's exits), regime (name),
        regime_<name> (filtered probability) and audit (P(profitable after costs)). A mean of members has spread: the
        standard deviation over members of raw P(1), a measure of their disagreement.
        Bars without a full finite window inside one segment have no row. Raises DataError if no bar has one.
        """
        bars = utc_bars(bars, name=f"bundle {self.folder}")
        if table is None:
            table = self.table(bars)
        else:
            self.check_bar_length(bars)
        assert len(table) == bars.height, (len(table), bars.height)
        rows = np.flatnonzero(table.ready(self.lookback))
        if since is not None:
            rows = rows[table.time[rows] >= utc64(since, "since")]
        elif len(rows) == 0:
            raise DataError(
                f"bundle {self.folder}: {len(table)} bars hold no full window; {self.history} bars without a gap "
                "are needed for the first prediction; load earlier data"
            )
        if until is not None:
            rows = rows[table.time[rows] <= utc64(until, "until")]
        return self._frame(bars, table, rows)

    def _frame(self, bars: pl.DataFrame, table: FeatureTable, rows: Array) -> pl.DataFrame:
        marked = mark_gaps(bars, self.max_gap)
        measured = {"atr": atr(marked, int(self.card["label"]["atr_bars"]))[rows]}
        measured |= {name: values[rows] for name, values in exits.measures(self.card["label"], marked).items()}
        return self.predict_rows(bars.select("symbol", "time", "close")[rows], table, rows, measured)

    def predict_rows(
        self, frame: pl.DataFrame, table: FeatureTable, rows: Array, measured: Mapping[str, Array]
    ) -> pl.DataFrame:
        """The predictions of `predict` at rows of a feature table.

        Each with a full window that ends there. frame: symbol, time and close of the N rows. measured: `atr` and
        further inputs of the exits, [N] each.
        """
        score, probability, spread = _answers(self.primary, table, rows)
        columns: dict[str, Array] = {
            "atr": measured["atr"],
            "score": score[:, 1],
            "probability": probability[:, 1],
            **{name: values for name, values in measured.items() if name != "atr"},
        }
        if spread is not None:
            columns["spread"] = spread[:, 1]
        side = table.side()
        if side is not None:
            columns["side"] = side[rows]
        extra = auditor_columns(table, rows, score, self.regime)
        if self.regime is not None:
            beliefs = {name: belief for name, belief in extra.items() if name != "score"}
            likeliest = np.argmax(list(beliefs.values()), axis=0)
            columns |= {"regime": np.asarray(self.regime.names, dtype=object)[likeliest], **beliefs}
        if self.auditor is not None:
            columns["audit"] = audited(self.auditor, table, rows, extra)[:, 1]
        made = (pl.Series(name, v.tolist() if v.dtype == object else v) for name, v in columns.items())
        return frame.hstack(list(made))


def _answers(primary: Primary, table: FeatureTable, rows: Array) -> tuple[Array, Array, Array | None]:
    """Scores and probabilities [N, C], and the standard deviation of scores over members; None of a single model."""
    with_spread = getattr(primary, "predict_with_spread", None)
    return (*primary.predict(table, rows), None) if with_spread is None else with_spread(table, rows)


def auditor_columns(
    table: FeatureTable, rows: Array, score_NC: Array, regime: Regime | MarketRegime | None
) -> dict[str, Array]:
    """What the auditor reads beside the features, [N] each.

    score: raw P(1). regime_<name>: filtered probabilities, where there is a regime.
    """
    columns = {"score": score_NC[:, 1]}
    if regime is not None:
        belief_NK = regime.predict_proba(table, rows)
        columns |= {f"regime_{name}": belief_NK[:, k] for k, name in enumerate(regime.names)}
    return columns


def audited(auditor: Xgboost, table: FeatureTable, rows: Array, columns: Mapping[str, Array]) -> Array:
    """The auditor's float64 [N, 2] at these rows.

    columns: as `auditor_columns` returns them. Block by block: a second copy of all rows' features would be a large
    share of the memory.
    """
    parts = []
    for k in range(0, max(len(rows), 1), ROWS_AT_ONCE):
        block = slice(k, k + ROWS_AT_ONCE)
        wide = table.take(rows[block], {name: column[block] for name, column in columns.items()})
        parts.append(auditor.predict_proba(wide, np.arange(len(wide))))
    return np.concatenate(parts)


def _load_regime(path: Path) -> Regime | MarketRegime:
    from tradsys.models.market_regime import regime_from_json  # noqa: PLC0415 - only where the bundle holds one

    return regime_from_json(read_json(path, FIX))


def _load_auditor(path: Path) -> Xgboost:
    from tradsys.models.boosting import Xgboost  # noqa: PLC0415 - only where the bundle holds one

    return Xgboost.load(path)


def _load_graph(folder: Path, card: Mapping[str, Any]) -> Primary:
    from tradsys.models.onnx_runtime import OnnxModel  # noqa: PLC0415 - only where the bundle holds one

    model = OnnxModel.load(folder / "model.onnx")
    if model.n_features != len(card["feature_names"]) or model.lookback != card["model"]["lookback"]:
        raise BundleError(
            f"bundle {folder}: the graph reads [{model.lookback}, {model.n_features}], the card states "
            f"[{card['model']['lookback']}, {len(card['feature_names'])}]; export it again"
        )
    return model


def _load_ensemble(folder: Path, card: Mapping[str, Any]) -> Primary:
    from tradsys.serving.ensemble import ServedEnsemble  # noqa: PLC0415 - only where the bundle holds one

    return ServedEnsemble.load(folder, card["calibrator"], len(card["feature_names"]))


def _load_boosted(folder: Path, card: Mapping[str, Any]) -> Primary:
    from tradsys.models.boosting import LightGbm, Xgboost  # noqa: PLC0415 - only where the bundle holds one
    from tradsys.models.calibrators import calibrator_from_json  # noqa: PLC0415

    kinds: dict[str, type[LightGbm] | type[Xgboost]] = {"lightgbm": LightGbm, "xgboost": Xgboost}
    model = kinds[card["model"]["kind"]].load(folder / "model.txt")
    return Boosted(model, calibrator_from_json(card["calibrator"]))


LOADERS: dict[str, Callable[[Path, Mapping[str, Any]], Primary]] = {
    "onnx": _load_graph,
    "ensemble": _load_ensemble,
    "lightgbm": _load_boosted,
    "xgboost": _load_boosted,
}


def _load_primary(folder: Path, card: Mapping[str, Any]) -> Primary:
    kind = card["model"]["kind"]
    if kind not in LOADERS:
        raise BundleError(f"bundle {folder}: model kind {kind!r} is not one of {list(LOADERS)}; update tradsys")
    return LOADERS[kind](folder, card)
