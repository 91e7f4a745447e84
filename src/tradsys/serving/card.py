"""Reads a bundle's card.json and verifies it and all files before use."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tradsys.core.errors import BundleError
from tradsys.core.plain_data import Json
from tradsys.core.received import inside, plain_texts, read_json
from tradsys.core.runs import digest_file, digest_json

FORMAT = 1  # raised when an older reader could misread the files
FIX = "export it again"
MOST_BARS = 10_000_000


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_BARS


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_gap(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 < value <= MOST_BARS)


def _is_scores(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value)) and value == sorted(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_label(value: Any) -> bool:
    if not (_is_mapping(value) and _is_count(value.get("atr_bars")) and _is_text(value.get("kind", ""))):
        return False
    counts = [value[key] for key in value if key.endswith("_bars")]
    sizes = [value[key] for key in ("upper", "lower", "rise") if key in value]
    return all(v is None or _is_count(v) for v in counts) and all(v is None or _is_number(v) for v in sizes)


def _is_spans(value: Any) -> bool:
    return _is_mapping(value) and all(_is_span(value.get(name)) for name in {"train", "test", *value})


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_moment, value))


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_model(value: Any) -> bool:
    return _is_mapping(value) and _is_text(value.get("kind")) and _is_count(value.get("lookback", 1))


def _is_digests(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(d, str) for d in value.values())


# required entries of a card
RULES: Mapping[str, Callable[[Any], bool]] = {
    "features": _is_mapping,
    "feature_names": _is_names,
    "schema_hash": _is_text,
    "model": _is_model,
    "calibrator": lambda value: value is None or _is_mapping(value),
    "label": _is_label,
    "history": lambda value: _is_count(value) and value > 0,
    "max_gap_minutes": _is_gap,
    "valid_score_quantiles": _is_scores,
    "span": _is_spans,
    "candidate_score": lambda value: value is None or _is_number(value),
    "data": lambda value: _is_mapping(value) and _is_text(value.get("digest")),
    "data_config": _is_mapping,
    "code_sha": _is_text,
    "files": _is_digests,
}


# what cards of earlier versions lack
OPTIONAL: Mapping[str, Callable[[Any], bool]] = {"bar_minutes": _is_gap, "name": _is_text, "foreign": _is_mapping}


def verified_card(folder: Path) -> Json:
    """The card of a bundle whose files all match their digests.

    BundleError names any that do not. Digests are compared before any other content of a file is read.
    """
    if not (folder / "card.json").is_file():
        raise BundleError(f"bundle {folder}: no card.json there; give the folder that train or export wrote")
    card: Json = read_json(inside(folder, "card.json"), FIX)
    if card.get("format") != FORMAT:
        raise BundleError(f"bundle {folder}: format {card.get('format')!r:.40}, this code reads {FORMAT}; {FIX}")
    body = {k: v for k, v in card.items() if k != "card_sha256"}
    if card.get("card_sha256") != digest_json(body):
        raise BundleError(f"bundle {folder}: card.json was altered after it was sealed; {FIX}")
    rules = {**RULES, **{name: rule for name, rule in OPTIONAL.items() if name in card}}
    if wrong := [name for name, rule in rules.items() if name not in card or not rule(card[name])]:
        lacking = [name for name in wrong if name not in card]
        raise BundleError(
            f"bundle {folder}: card.json lacks {lacking}, malformed {sorted({*wrong} - {*lacking})}; {FIX}"
        )
    if plain_texts(card) != card:
        raise BundleError(
            f"bundle {folder}: card.json holds control characters, which steer a terminal or hide text; {FIX}"
        )
    _compare_files(folder, card["files"])
    return card


def _compare_files(folder: Path, sealed: Mapping[str, str]) -> None:
    found = {path.name for path in folder.iterdir() if path.name != "card.json"}
    paths = {name: inside(folder, name) for name in sorted({*found, *sealed})}
    missing, unknown = sorted(set(sealed) - found), sorted(found - set(sealed))
    altered = [name for name in sorted(found & set(sealed)) if digest_file(paths[name]) != sealed[name]]
    if missing or unknown or altered:
        raise BundleError(
            f"bundle {folder}: missing {missing}, unknown {unknown}, altered {altered}; every file must match its "
            "digest; "
            f"{FIX}"
        )
