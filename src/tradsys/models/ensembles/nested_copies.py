"""Copies of composed models with another seed or folder in every nested part."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

Part = TypeVar("Part")


def seeded(model: Part, seed: int) -> Part:
    """A copy of a nested, unfitted model whose every `seed` field has this value."""
    return _with_every(model, "seed", seed)


def watched(model: Part, watch: Callable[[int, float], None] | None) -> Part:
    """A copy of a nested model whose nets report each epoch's validation loss.

    They call `watch(epoch, log-loss)`; the model is unfitted.
    """
    return _with_every(model, "watch", watch)


def _with_every(part: Part, name: str, value: Any) -> Part:
    """A copy of a nested dataclass whose every field of this name has this value, in tuples, lists and dicts too."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed: dict[str, Any] = {}
    for each in (f for f in fields(part) if f.init):
        old = getattr(part, each.name)
        if each.name == name:
            changed[each.name] = value
        elif isinstance(old, tuple | list):
            changed[each.name] = type(old)(_with_every(item, name, value) for item in old)
        elif isinstance(old, dict):
            changed[each.name] = {key: _with_every(item, name, value) for key, item in old.items()}
        elif is_dataclass(old):
            changed[each.name] = _with_every(old, name, value)
    return replace(part, **changed)


def in_workdir(model: Part, folder: Path) -> Part:
    """An unfitted copy of a nested model whose parts write to `folder`.

    Every part with a `workdir` field gets it; members of a tuple get `folder/0`, `folder/1`, ..., those of a
    dict `folder/<name>`, so that they do not overwrite each other. A model without such a part comes back equal.
    """
    if not is_dataclass(model) or isinstance(model, type):
        return model
    changed: dict[str, Any] = {}
    for each in (f for f in fields(model) if f.init):
        value = getattr(model, each.name)
        if each.name == "workdir":
            changed[each.name] = folder
        elif isinstance(value, tuple | list):
            moved = [in_workdir(item, folder / str(i)) for i, item in enumerate(value)]
            if any(new is not old for new, old in zip(moved, value, strict=True)):
                changed[each.name] = type(value)(moved)
        elif isinstance(value, dict):
            changed[each.name] = {key: in_workdir(item, folder / str(key)) for key, item in value.items()}
        elif is_dataclass(value):
            changed[each.name] = in_workdir(value, folder)
    return replace(model, **changed)
