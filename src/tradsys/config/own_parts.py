"""Checks that parts from outside this package have the methods which the pipeline calls.

Runs before anything is built and checks that each method takes the pipeline's arguments. Returned values are checked
where they are first returned.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from tradsys.config.settings_walk import OWN
from tradsys.config.trusted import place_inside

# arguments of each method, by the place of its part; `name=...` is passed by name
CALLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "source": {"bars": (), "describe": ()},
    "feature": {"expr": ()},
    "labels": {"label": ("bars", "side"), "card": ()},
    "events": {"mask": ("bars",)},
    "split": {"split": ("samples",)},
    "transforms": {"fit": ("table", "rows"), "apply": ("table",)},
    "model": {"fit": ("train", "valid"), "predict_proba": ("table", "rows")},
    "calibrator": {"fit": ("proba_NC", "y_N", "weight_N"), "apply": ("proba_NC",)},
    "regime": {"fit": ("train", "valid"), "predict_proba": ("table", "rows")},
    "auditor": {"fit": ("train", "valid"), "predict_proba": ("table", "rows"), "save": ("path",)},
    "rule": {"side": ("view", "bundle"), "describe": ()},
    "mask": {"allows": ("view",), "describe": ()},
    "sizing": {"size": ("view",), "describe": ()},
    "net": {"__init__": ("n_features=...", "n_classes=...", "lookback=..."), "forward": ("window_NTF",)},
    "module": {"__init__": ("net",)},
    "augmentation": {"__call__": ("window_NTF", "generator")},
    "pretrain": {"run": ("net", "train", "lookback=...", "seed=...", "device=...")},
}


def wrong_part(config: Any) -> str | None:
    """The error line for the first outside part with a method that cannot be called.

    None where all can. config: plain values.
    """
    return _wrong_inside(config, "", "")


def _wrong_inside(value: Any, place: str, path: str) -> str | None:
    if isinstance(value, list):
        named = [(str(k), inner) for k, inner in enumerate(value)]
    elif isinstance(value, Mapping):
        if line := _wrong_class(value, place, path):
            return line
        named = [(str(key), inner) for key, inner in value.items()]
    else:
        return None
    for key, inner in named:
        below = place if isinstance(value, list) else place_inside(place, key, is_part="_target_" in value)
        if line := _wrong_inside(inner, below, f"{path}.{key}" if path else key):
            return line
    return None


def _wrong_class(part: Mapping[str, Any], place: str, path: str) -> str | None:
    name = part.get("_target_")
    if not isinstance(name, str) or name.startswith(OWN) or place not in CALLS:
        return None
    try:
        cls = get_object(name)
    except Exception:  # building the part reports why it cannot be imported
        return None
    if not inspect.isclass(cls):  # the result of a function is checked after it is built
        return None
    for method, given in CALLS[place].items():
        if why := _uncallable(cls, method, given, set(part)):
            called = f"{cls.__name__}{'' if method == '__init__' else f'.{method}'}({', '.join(given)})"
            return (
                f"config: {path}: {called} is what is called here, and {name} {why}; give it that method and these "
                "arguments; docs/extensions.md has one example of each kind"
            )
    return None


def _uncallable(cls: type, method: str, given: tuple[str, ...], configured: set[str]) -> str | None:
    """Why a method does not take these arguments; None where it does or cannot be checked."""
    found = inspect.getattr_static(cls, method, None)
    if found is None or (method == "__init__" and found is object.__init__):
        known = method in getattr(cls, "__dataclass_fields__", {}) or hasattr(cls, "__getattr__")
        return None if known else f"has no {'arguments' if method == '__init__' else method}"
    if isinstance(found, property) or not callable(getattr(cls, method)):
        return f"has a {method} that is no method" if not isinstance(found, property) else None
    try:
        signature = inspect.signature(getattr(cls, method))
    except (TypeError, ValueError):  # of C
        return None
    own = [] if isinstance(found, staticmethod | classmethod) else [None]
    named = {one.removesuffix("=..."): None for one in given if "=" in one}
    rest = {} if method != "__init__" else {key: None for key in configured if key.isidentifier() and key[0] != "_"}
    try:
        signature.bind(*own, *[None for one in given if "=" not in one], **(rest | named))
    except TypeError as error:
        return f"takes {_taken(signature)} there ({error})"
    return None


def _taken(signature: inspect.Signature) -> str:
    """The arguments without types and `self`, such as `(bars, side=None)`."""
    plain = [one.replace(annotation=one.empty) for name, one in signature.parameters.items() if name != "self"]
    return str(inspect.Signature(plain))
