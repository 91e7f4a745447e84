"""Checks of a label class, user-written ones included: when configured and after labelling."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.errors import DataError, TrainingError
from tradsys.core.extensions import answer
from tradsys.core.protocols import Labeller
from tradsys.core.received import parse_json
from tradsys.core.tables import Array, Labels
from tradsys.labels.settings import BOUNDS
from tradsys.labels.stored import KINDS, label_of_card
from tradsys.market.tradable import fillable_prices

SIZES = ("horizon_bars", "atr_bars")
RULE = "see the label of `tradsys new`"


def check_label(label: Any) -> None:
    """Raises TrainingError where a label or its card is incomplete or invalid.

    The card goes into bundles as JSON, rebuilds the same label, and states the exits of a position. A built-in kind
    may be used only by that very class.
    """
    name = type(label).__name__
    needed = ("label", "card", *SIZES)
    if lacking := [each for each in needed if not hasattr(label, each)]:
        raise TrainingError(f"labels: {name} lacks {', '.join(lacking)}; a label has {', '.join(needed)}; {RULE}")
    assert isinstance(label, Labeller)
    card = answer(label, "card", kind=Mapping)
    if not _is_json(card):
        raise TrainingError(
            f"labels: {name}.card() holds what is no JSON value, or a number that is not finite; it is a mapping of "
            f"texts, numbers, lists and mappings, as a bundle keeps it; {RULE}"
        )
    for size in SIZES:
        own = getattr(label, size)
        if not is_within(own, BOUNDS[size]) or card.get(size) != own:
            raise TrainingError(
                f"labels: {name}.{size}={own!r} and its card states {card.get(size)!r}; both are one whole number from "
                f"1; {RULE}"
            )
    classes = card.get("classes")
    names = classes if isinstance(classes, list | tuple) else ()
    if len(names) < 2 or len({each for each in names if isinstance(each, str)}) != len(names):
        raise TrainingError(
            f"labels: the classes of {name}.card() are {classes!r}; they are the names of codes 0, 1, ..., at least "
            f"two; {RULE}"
        )
    _check_kind(label, name, card)


def _check_kind(label: Any, name: str, card: Mapping[str, Any]) -> None:
    kind = card.get("kind")
    if not isinstance(kind, str) or not kind:
        raise TrainingError(f"labels: {name}.card() states kind={kind!r}; it is a text, such as {name!r}; {RULE}")
    if kind in KINDS and type(label) is not KINDS[kind]:
        raise TrainingError(
            f"labels: {name}.card() states kind={kind!r}, which is {KINDS[kind].__name__}: other data would be "
            f"labelled by that rule; give it a kind of its own, such as {name!r}"
        )
    if kind in KINDS:
        label_of_card(card)


def _is_json(card: Mapping[str, Any]) -> bool:
    """Whether a card survives JSON unchanged, but for tuples."""
    try:
        return bool(parse_json(json.dumps(card, allow_nan=False), "card", RULE) == _as_lists(card))
    except (TypeError, ValueError, RecursionError):
        return False


def _as_lists(value: Any) -> Any:
    """The value with lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _as_lists(inner) for key, inner in value.items()}
    return [_as_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def checked_labels(labels: Labels, label: Any, bars: pl.DataFrame) -> Labels:
    """The labels of these bars; DataError names the first rule a row breaks.

    A label ends at a later row of the same symbol, because spans are purged by it. It lasts at most `horizon_bars` plus
    what its card adds for delistings, because intervals take that for the memory of outcomes. The length is checked for
    labels of other packages only: built-in labels wait for bars that can fill, which do not count.
    """
    name, n = type(label).__name__, len(bars)
    for part in ("y", "end", "ret", "weight"):
        found = np.asarray(getattr(labels, part))
        integral = part in ("y", "end")
        if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer if integral else np.floating):
            kind = "whole numbers" if integral else "floats"
            raise DataError(
                f"labels: {part} of {name}.label() is {found.dtype} {list(found.shape)}; it holds {kind}, one for each "
                f"of {n} bars; {RULE}"
            )
    card = label.card()
    lasting = int(card["horizon_bars"]) + int(card.get("dead_after_bars") or 0)
    rows = np.flatnonzero(labels.resolved)
    end, last = labels.end[rows], len(card["classes"]) - 1
    inside = end < n
    elsewhere = (bars["symbol"].gather(end * inside) != bars["symbol"].gather(rows)).to_numpy()
    broken = {
        f"have a class above {last}, the last that its card names": labels.y[rows] > last,
        "end at no later bar of their own symbol": ~inside | (end <= rows) | elsewhere,
        f"last longer than the {lasting} bars that its card states": _overlong(card, bars, rows, end, lasting),
        "have a return that is no finite number": ~np.isfinite(labels.ret[rows]),
        "have a weight that is no number from 0": ~(np.isfinite(labels.weight[rows]) & (labels.weight[rows] >= 0)),
    }
    for what, where in broken.items():
        if where.any():
            first = int(rows[np.argmax(where)])
            raise DataError(f"labels: {int(where.sum())} labels of {name} {what} (first at row {first}); {RULE}")
    return labels


def _overlong(card: Mapping[str, Any], bars: pl.DataFrame, rows: Array, end: Array, lasting: int) -> Array:
    """True where a label of another package lasts longer than so many bars in which something can be filled."""
    if card["kind"] in KINDS:
        return np.zeros(len(rows), dtype=np.bool_)
    fills, leaves = fillable_prices(bars)
    stuck = np.cumsum(np.append(0, ~(fills & leaves)))
    waited = stuck[np.minimum(end, len(bars) - 1) + 1] - stuck[rows + 1]
    return np.asarray(end - rows - waited > lasting)
