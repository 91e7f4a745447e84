"""Result table of a comparison: skills, paired differences, spreads, and conclusions as text.

Sentences that depend on a number are built here from the number, so that a table never states more than its
figures do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from uuid import uuid4

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, EstimateRow
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json
from tradsys.core.runs import digest_json, write_json
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import mean_per_time, time_groups
from tradsys.evidence.classification import auc
from tradsys.evidence.paired import Comparison, Difference, VariantLosses, compare, decisions_within
from tradsys.research.comparisons.settings import ComparisonSettings
from tradsys.research.comparisons.superiority import Superiority, superiority
from tradsys.research.pipeline.cross_validation import FoldFit
from tradsys.research.pipeline.dataset import aware
from tradsys.research.pipeline.provenance import config_digest, provenance
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, run_identity

LOOKS = "looks.json"


@dataclass(frozen=True, eq=False)
class VariantFits:
    """All fits of one variant: fits[s][k] is seed s on fold k.

    code: commits that ran them. digest: of what determines them. horizon: longest duration of a label. fold_spans:
    first and last test decision of each fold. against: its rival, None for the reference. own_rows:
    whether its samples differ from the rival's.
    """

    name: str
    seeds: tuple[int, ...]
    fits: Sequence[Sequence[FoldFit]]
    code: Sequence[str]
    digest: str
    data_digest: str
    data: Mapping[str, Any]
    horizon: np.timedelta64
    fold_spans: Sequence[tuple[np.datetime64, np.datetime64]]
    against: str | None
    own_rows: bool

    @property
    def losses(self) -> VariantLosses:
        """Losses at the level of each fold, one row per seed.

        Raises DataError where seeds have different samples.
        """
        first = self.fits[0]
        for row in self.fits[1:]:
            for a, b in zip(first, row, strict=True):
                if not (np.array_equal(a.time, b.time) and np.array_equal(a.symbol, b.symbol)):
                    raise DataError(
                        f"compare: seeds of variant {self.name!r} were evaluated on different samples; delete its fits"
                    )
        return VariantLosses(
            time=np.concatenate([fit.time for fit in first]),
            losses_SN=np.stack([np.concatenate([fit.levelled.forecast for fit in row]) for row in self.fits]),
            base_N=np.concatenate([fit.levelled.constant for fit in first]),
            seeds=self.seeds,
        )

    @property
    def flat(self) -> list[FoldFit]:
        """All fits, seed by seed."""
        return [fit for row in self.fits for fit in row]


def enter_trials(variants: Mapping[str, VariantFits], place: Path, config: Mapping[str, Any]) -> None:
    """Records every variant as a trial in the ledger, before its figures are shown.

    Existing ones stay.
    """
    path = place / LOOKS
    entered = read_json(path, "restore it from a copy", DataError) if path.is_file() else {}
    uuid = entered.setdefault("uuid", uuid4().hex)
    ledger = TrialLedger(config["paths"]["ledger"])
    for variant in variants.values():
        key = digest_json([variant.name, variant.digest, variant.seeds])
        if key in entered:
            continue
        losses = variant.losses
        entry = LedgerEntry(
            purpose="compare",
            subject=variant.name,
            data_digest=variant.data_digest,
            span_start=aware(losses.time.min()),
            span_end=aware(losses.time.max()),
            config_digest=config_digest(dict(config)),
            run=run_identity(place, uuid),
            measure="loss",
        )
        raw_SN = np.stack([np.concatenate([fit.losses for fit in row]) for row in variant.fits])
        entered[key] = ledger.append(entry, mean_per_time(raw_SN.mean(axis=0), *time_groups(losses.time)))
        write_json(path, entered)


class VariantRow(TypedDict):
    """One variant of a comparison, see `comparison_table`.

    needed: periods or seeds until the interval leaves zero.
    """

    name: str
    is_reference: bool
    against: str | None
    own_rows: bool
    seeds: list[int]
    n_samples: int
    skill_beyond_level: EstimateRow
    skill_over_base_rate: float
    difference: EstimateRow | None
    p: float | None
    p_holm: float | None
    needed: Json | None
    rank: int
    seed_sd: float | None
    fold_sd: float | None
    auc: float | None
    n_parameters: int | None
    seconds_per_fit: float
    peak_mb: float
    fold_skill: list[float]
    code: list[str]
    digest: str


class ComparisonTable(TypedDict):
    """The complete result of a comparison, see `comparison_table`."""

    name: str
    question: str
    synthetic: str | None
    reference: str
    confidence: float
    n_draws: int
    block_length: float
    n_times: int
    no_intervals: str | None
    n_comparisons: int
    superiority: Superiority
    n_folds: int
    folds: list[dict[str, str]]
    variants: list[VariantRow]
    conclusions: list[dict[str, str]]
    provenance: Json
    folder: NotRequired[str]
    command: NotRequired[str]


def comparison_table(
    variants: Mapping[str, VariantFits], settings: ComparisonSettings, config: Mapping[str, Any]
) -> ComparisonTable:
    """The complete result, ready for JSON: numbers or None, never NaN.

    Keys: name, question, synthetic, reference, confidence, n_draws, block_length, n_times, no_intervals (why, or None),
    n_comparisons, superiority (of the best over the reference; see `superiority`), n_folds, folds (start, end of each),
    variants (best first), conclusions, provenance. A variant:
    name, is_reference, against, own_rows, seeds, n_samples, skill_beyond_level and difference ({value, low, high,
    reason}; None for the reference's difference), skill_over_base_rate (mean over folds and seeds), p, p_holm, rank,
    seed_sd, fold_sd, auc, n_parameters, seconds_per_fit, peak_mb, fold_skill, code, digest.
    """
    losses = {name: variant.losses for name, variant in variants.items()}
    reach = max(decisions_within(losses[name].time, variant.horizon) for name, variant in variants.items())
    reported = compare(
        losses,
        settings.reference,
        against={name: variant.against for name, variant in variants.items() if variant.against},
        min_block=reach,
        n_draws=settings.n_draws,
        confidence=settings.confidence,
    )
    reference = variants[settings.reference]
    rows = [_variant_row(variant, reported, losses[name], settings.reference) for name, variant in variants.items()]
    rows.sort(key=lambda row: -(row[HEADLINE]["value"] or 0.0))
    return {
        "name": settings.name,
        "question": settings.question,
        "synthetic": reference.data.get("note") if reference.data.get("synthetic") else None,
        "reference": settings.reference,
        "confidence": settings.confidence,
        "n_draws": settings.n_draws,
        "block_length": reported.block_length,
        "n_times": reported.n_times,
        "no_intervals": reported.reason,
        "n_comparisons": len(reported.difference),
        "superiority": superiority(
            {name: losses[name] for name, variant in variants.items() if not variant.own_rows},
            settings.reference,
            min_block=reach,
            n_draws=settings.n_draws,
        ),
        "n_folds": len(reference.fold_spans),
        "folds": [{"start": _iso(start), "end": _iso(end)} for start, end in reference.fold_spans],
        "variants": rows,
        "conclusions": conclusions(reported, variants, settings.reference, settings.confidence),
        "provenance": provenance(dict(config), dict(reference.data)) | {"config": masked(dict(config))},
    }


def _variant_row(variant: VariantFits, reported: Comparison, losses: VariantLosses, reference: str) -> VariantRow:
    gap = reported.difference.get(variant.name)
    fold_skill = [_mean([row[k].skill for row in variant.fits]) for k in range(len(variant.fits[0]))]
    # within a fold and a seed: scores of two fits have no common scale
    areas = [auc(fit.proba_NC, fit.y) for fit in variant.flat]
    return {
        "name": variant.name,
        "is_reference": variant.name == reference,
        "against": variant.against,
        "own_rows": variant.own_rows,
        "seeds": list(variant.seeds),
        "n_samples": len(losses.time),
        HEADLINE: reported.skill[variant.name].as_dict(),
        OVER_BASE_RATE: _mean([fit.skill_over_base_rate for fit in variant.flat]),
        "difference": None if gap is None else gap.estimate.as_dict(),
        "p": None if gap is None else gap.p,
        "p_holm": None if gap is None else gap.p_holm,
        "needed": None if gap is None or gap.needed is None else asdict(gap.needed),
        "rank": reported.rank[variant.name],
        "seed_sd": _spread(losses.skill_S),
        "fold_sd": _spread(np.array(fold_skill)),
        "auc": _mean([a for a in areas if a is not None]) if any(a is not None for a in areas) else None,
        "n_parameters": variant.flat[0].n_parameters,
        "seconds_per_fit": _mean([fit.seconds for fit in variant.flat]),
        "peak_mb": float(max(fit.peak_mb for fit in variant.flat)),
        "fold_skill": fold_skill,
        "code": list(variant.code),
        "digest": variant.digest,
    }


def conclusions(
    reported: Comparison, variants: Mapping[str, VariantFits], reference: str, confidence: float
) -> list[dict[str, str]]:
    """One {variant, kind, text} per variant but the reference.

    kind is better, worse, none or unknown.
    """
    return [
        {
            "variant": name,
            **_concluded(
                gap, variants[name], variants[variants[name].against or reference], confidence, len(reported.difference)
            ),
        }
        for name, gap in reported.difference.items()
    ]


def _concluded(
    gap: Difference, variant: VariantFits, against: VariantFits, confidence: float, n_comparisons: int
) -> dict[str, str]:
    name, reference, found = variant.name, against.name, gap.estimate
    assert found.value is not None
    if found.low is None or found.high is None:
        return {
            "kind": "unknown",
            "text": f"{name} against {reference}: {found.value:+.4f}, no interval ({found.reason})",
        }
    seeds = _seeds(variant, against)
    each = ", each on its own rows at their own level" if variant.own_rows else ""
    if found.low > 0 or found.high < 0:
        better, worse = (name, reference) if found.low > 0 else (reference, name)
        low, high = sorted((abs(found.low), abs(found.high)))
        text = f"{better} beats {worse} by {abs(found.value):.4f} ({low:.4f} to {high:.4f}), {seeds}{each}"
        if gap.p_holm is not None and gap.p_holm > 1 - confidence:
            text += f"; but p is {gap.p_holm:.2f} after Holm over {n_comparisons} comparisons, so it may be chance"
        return {"kind": "better" if found.low > 0 else "worse", "text": text}
    measured = f"{found.value:+.4f}, {found.low:+.4f} to {found.high:+.4f}, {seeds}{each}"
    return {"kind": "none", "text": f"no difference shown between {name} and {reference} ({measured}){_more(gap)}"}


def _more(gap: Difference) -> str:
    """What would make the difference significant, if it were as large as measured."""
    if gap.needed is None:
        return ""
    if gap.needed.n_seeds is not None:
        return f"; {gap.needed.n_seeds} seeds would be needed"
    if gap.needed.times_the_record is not None:
        return (
            "; no number of seeds would show it on this record: "
            f"{_factor_text(gap.needed.times_the_record)} times the years would be needed"
        )
    return "; the two have the same losses"


def _factor_text(value: float) -> str:
    """The factor as text, rounded up: the record was not enough, so 1.0 would be wrong."""
    return (
        f"{max(1.1, np.ceil(10 * value) / 10):.1f}"
        if value < 10
        else f"{value:,.0f}"
        if value < 10_000
        else "more than 10,000"
    )


def _seeds(variant: VariantFits, against: VariantFits) -> str:
    n, m = len(variant.seeds), len(against.seeds)
    if n == m:
        return f"{n} seed{'' if n == 1 else 's'}"
    return f"{n} and {m} seeds"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Array) -> float | None:
    """Standard deviation (ddof 1); None of one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _iso(time: np.datetime64) -> str:
    return aware(time).isoformat(timespec="minutes")
