"""Rebuilds the label of a bundle's card, so that new data are labelled by the rule of the training data."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from tradsys.core.errors import DataError
from tradsys.core.extensions import load_part
from tradsys.core.plain_data import Json
from tradsys.labels.expansion import RangeExpansion
from tradsys.labels.explosion import Explosion
from tradsys.labels.forward_return import ForwardReturn
from tradsys.labels.mean_reached import MeanReached
from tradsys.labels.triple_barrier import TripleBarrier

Label = TripleBarrier | MeanReached | RangeExpansion | ForwardReturn | Explosion
KINDS: dict[str, type[Label]] = {
    "triple_barrier": TripleBarrier,
    "mean_reached": MeanReached,
    "expansion": RangeExpansion,
    "forward_return": ForwardReturn,
    "explosion": Explosion,
}
# cards keep the classes instead, a side only where it is not long, and a delisting rule only where there is one
DERIVED = ("ternary", "side", "dead_after_bars", "delisting_return")


def label_of_card(card: Mapping[str, Any]) -> Label:
    """The label described by the `label` entry of a card.

    A card without a kind is a triple barrier's. A kind that tradsys does not have is looked up among the `labels` that
    installed packages register. Raises DataError for an unknown kind and for a card that lacks a parameter; a parameter
    out of range raises whatever the label's constructor raises.
    """
    kind = str(card.get("kind", "triple_barrier"))
    cls = KINDS.get(kind) or _of_extension(kind)
    if cls is None:
        raise DataError(
            f"label: kind {kind[:60]!r} is not known here; known are {', '.join(KINDS)}, and what installed packages "
            "register under the entry point tradsys.parts"
        )
    names = [field.name for field in fields(cls)]
    if missing := [name for name in names if name not in card and name not in DERIVED]:
        raise DataError(f"label: the card of a {kind} lacks {', '.join(missing)}; no default replaces it")
    sizes: Json = {name: card[name] for name in names if name in card}
    if "ternary" in names:
        sizes["ternary"] = len(card.get("classes", ())) == 3
    return cls(**sizes)


def _of_extension(name: str) -> type[Label] | None:
    """The registered class of an installed package; DataError unless it is a dataclass with horizon_bars."""
    cls = load_part("labels", name)
    if cls is None:
        return None
    if not (isinstance(cls, type) and is_dataclass(cls)) or "horizon_bars" not in [f.name for f in fields(cls)]:
        raise DataError(
            f"label: {name} of an installed package is no dataclass with a field horizon_bars; a label is one; fix the "
            "package"
        )
    return cast(type[Label], cls)
