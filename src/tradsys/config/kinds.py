"""Checks the type of every configured value before anything is built: number, text, list, part.

The type of an argument is its annotation in the constructor that `_target_` names. Any other key has the type of its
default in conf/, and may be null where its documented meaning includes null. Each part checks the range of its values
itself.
"""

import builtins
import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tradsys.config.copies import written
from tradsys.config.explain import leaves, value_at
from tradsys.config.meanings import Meanings
from tradsys.config.settings_walk import every_setting, every_text
from tradsys.core.bounds import too_large
from tradsys.core.received import is_one_line, plain_text

PROSE = ("question",)  # keys whose texts may have several lines
SEED = "seed"  # checked by `compose.as_dict`
SET = re.compile(r"; set (?:\w+\.)*(\w+)$")  # how a part's error ends
HYDRAS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)
_UNITS = ("_seconds", "_minutes", "_hours", "_gb", "_share", "_bps", "_gain")  # an integer default allows fractions
AMOUNTS = re.compile(
    r"(?:^|_)(?:seconds|minutes|hours|days|sessions|bars|gb|mb|gigabytes|epochs|rows|cpu|gpu)$|^n_(?!jobs$)"
)  # none is below zero
SHARES = re.compile(r"_(?:share|fraction)$")  # none is beyond one
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
MOST_YEARS = 200  # of a setting in a unit of time; dates do not reach further back
MOST = 1e15  # no setting has a larger number; whole numbers up to here are exact in a float and fit into 64 bits
_KIND_NAMES = {bool: "true or false", int: "a whole number within 1e15", float: "a number within 1e15", str: "text"}
# keys without a default, whose type no constructor gives
OPTIONAL: Mapping[str, Any] = {
    "since": date, "until": date, "start": date, "end": date, "date": date, "symbols": str | Sequence[str],
    "horizons": Sequence[int], "preflight.keys": Sequence[str], "doctor.keys": Sequence[str],
    "logger.fits": Sequence[str], "schedule.calendar": str,
    **{f"clean.sessions.{kind}": int for kind in ("prices", "report")},
    **{f"clean.gigabytes.{kind}": float for kind in ("prices", "quality", "features", "labels", "gates", "report")},
    "resume": str, "study_name": str, "storage": str, "hours": float, "money": float, "price_per_hour": float,
    "n_workers": int, "trial": int, "levels": str, "data_choice": str, "journal": str, "follow": str, "expected": str,
    "when": str, "path": str, "actions": str, "mapping": str, "calendar": str, "universe": str, "zone": str,
    "separator": str, "name": str, "decimal": str, "stamp": str, "resample": str, "task": str, "state": str,
    "experiment": str, "verdict": str, "confirm": str, "run": str, "data": str, "model": str,
}  # fmt: skip


def beyond_sense(plain: Any, raw: Any) -> str | None:
    """The error line for the first value above the limits of `core.bounds`.

    None if none is. plain, raw: a configuration as plain values, resolved, and as it was written. Settings of parts
    from outside this package are not checked here.
    """
    for path, _, value in every_setting(plain, own=True):
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())
        if takes := too_large(name, value):
            where = written_at(raw, path)
            return f"config: {where}={_short(value)}; {name} is {takes}; give {where}=..."
    return None


def wrong_value(plain: Any, raw: Any) -> str | None:
    """The error line for the first argument of a wrong type; None where all fit.

    plain, raw: as of `beyond_sense`.
    """
    for path, part in _parts(plain):
        hints, name = _hints(str(part["_target_"]))
        for key, value in part.items():
            if key in HYDRAS or key not in hints:
                continue
            takes = _no_amount(str(key), value) if _fits(hints[key], value) else _kind_words(hints[key])
            if takes:
                where = written_at(raw, f"{path}.{key}" if path else str(key))
                takes = f"{name} cannot be built from it (it takes {takes})"
                return f"config: {where}={_short(value)}: {takes}; give {where}=..."
    return None


def key_of(line: str) -> str:
    """The last part of the key in an error line of `wrong_value`."""
    return line.removeprefix("config: ").partition("=")[0].rpartition(".")[2]


def wrong_key(
    config: DictConfig, defaults: DictConfig, keys: Sequence[str], command: str, meanings: Callable[[], Meanings]
) -> str | None:
    """The error line for the first key whose value has another type than its default.

    None where all fit. keys: dotted paths that a command line sets. Arguments of a constructor are left to
    `wrong_value`. meanings: read only where a key with a default is set to null.
    """
    plain, before = written(config), written(defaults)
    followed = _followed_by_arguments(before)
    for key in keys:
        last = key.rpartition(".")[2]
        if key == SEED or key in followed:
            continue
        value, known = value_at(plain, key), value_at(before, key)
        outer = [value_at(before, ".".join(key.split(".")[:k])) for k in range(1, key.count(".") + 1)]
        if known is ... or value is ... or any(not isinstance(one, Mapping) or "_target_" in one for one in outer):
            continue
        shown, value = value, _resolved(config, key, value)
        if value is ...:
            continue
        if value is None and (known is None or "null" in meanings().of(command, before, key)):
            continue
        hint = OPTIONAL.get(key, Any) if known in (None, []) else OPTIONAL.get(key) or _kind_of(known, last)
        if value == "" and known:
            return f"config: {key}=''; it takes a text that is not empty, such as {_short(known)}; give {key}=..."
        if _fits(hint, value) and (takes := _no_amount(key, value) or too_large(last, value)):
            return f"config: {key}={_short(shown)}; it takes {takes}; give {key}=..."
        if not _fits(hint, value):
            quoted = f"; quote text that looks like one: {key}=\"'{value}'\"" if hint is str else ""
            return f"config: {key}={_short(shown)}; it takes {_kind_words(hint)}; give {key}=...{quoted}"
    return None


def hidden_text(config: DictConfig) -> str | None:
    """The error line for the first text with control or invisible characters.

    None otherwise.
    """
    for path, text in every_text(written(config)):
        prose = path.rpartition(".")[2] in PROSE
        if plain_text(text) != text or not (prose or is_one_line(text)):
            what = "a line break, a tab or a character that is not seen"
            return f"config: {path}={_short(text)}; it holds {what}; give {path}=... without it"
    return None


def _resolved(config: DictConfig, key: str, value: Any) -> Any:
    """The resolved value; Ellipsis where an interpolation has no target (`plain_config` reports it)."""
    if not (isinstance(value, str) and "${" in value):
        return value
    try:
        found = OmegaConf.select(config, key)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except (OmegaConfBaseException, ValueError, TypeError):  # a resolver may raise any of these
        return ...


def _followed_by_arguments(defaults: Mapping[str, Any]) -> set[str]:
    """Keys whose value reaches a constructor, directly or through another key."""
    pointing = {key: value[2:-1] for key, value in leaves(defaults) if isinstance(value, str) and value[:2] == "${"}
    found = {to for key, to in pointing.items() if _is_argument(defaults, key)}
    while more := {to for key, to in pointing.items() if key in found} - found:
        found |= more
    return found


def _is_argument(plain: Mapping[str, Any], key: str) -> bool:
    outer = [value_at(plain, ".".join(key.split(".")[:k])) for k in range(1, key.count(".") + 1)]
    return any(isinstance(one, Mapping) and "_target_" in one for one in outer)


def _no_amount(key: str, value: Any) -> str | None:
    """The range of an amount, by the name of its key or of the mapping around it, that this number leaves.

    None where the number is inside, or the key is no amount.
    """
    names = key.split(".")[-2:]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if SHARES.search(names[-1]) and not 0 <= value <= 1:
        return "a share from 0 to 1"
    found = next((match for name in reversed(names) if (match := AMOUNTS.search(name))), None)
    if found is None:
        return None
    if value < 0:
        return "a number from 0"
    years = value * SECONDS.get(found[0].lstrip("_"), 0) / (365.25 * 86400)
    return f"at most {MOST_YEARS} years" if years > MOST_YEARS else None


def _kind_of(default: Any, last: str) -> Any:
    """The type of a key with this default."""
    if isinstance(default, str):
        return str
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return float if last.endswith(_UNITS) else int
    return next((kind for kind in (float, list, dict) if isinstance(default, kind)), Any)


def _parts(plain: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_` and its dotted path, outer ones first."""
    for path, _, value in (("", "", plain), *every_setting(plain)):
        if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
            yield path, value


class _Part:
    """Stands for a class that only the type checker imports."""


class _Names(dict[str, Any]):
    """Names of a module; one that it lacks is a builtin, or a class that only the type checker imports."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, _Part)


def _hints(target: str) -> tuple[dict[str, Any], str]:
    """Annotation by argument of what a `_target_` names, and its short name; none where it cannot be read."""
    name = target.rpartition(".")[2]
    try:
        return _annotations(get_object(target)), name
    except Exception:  # any error of its import; building the part reports it
        return {}, name


@lru_cache(maxsize=512)
def _annotations(made: Any) -> dict[str, Any]:
    """Annotation by argument of a class or function: to be read and never changed."""
    signature = inspect.signature(made)
    function = made.__init__ if inspect.isclass(made) else made
    names = _Names(getattr(inspect.unwrap(function), "__globals__", {}))
    found = {}
    for key, parameter in signature.parameters.items():
        hint = parameter.annotation
        if isinstance(hint, str):
            try:
                hint = eval(hint, {}, names)  # an annotation of code that is imported already
            except Exception:  # an annotation only a type checker can read
                continue
        if hint is not inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[key] = hint
    return found


def _fits(hint: Any, value: Any) -> bool:
    """Whether a plain value fits an annotation; True where that cannot be decided."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(_fits(one, value) for one in inner[: 1 if origin is typing.Annotated else None])
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    return _is_scalar(hint, value) if hint in _KIND_NAMES else _fits_class(origin or hint, inner, value)


def _fits_class(kind: Any, inner: tuple[Any, ...], value: Any) -> bool:
    """`_fits` for a class that is no scalar: list, mapping, path, date or part."""
    if kind in (Any, object) or not inspect.isclass(kind):
        return True
    if kind in _LISTS:
        each = [one for one in inner if one is not ...] or [Any]
        return isinstance(value, list) and all(_fits(each[min(k, len(each) - 1)], v) for k, v in enumerate(value))
    if kind in _MAPPINGS:
        known = inner[1] if len(inner) == 2 else Any
        return isinstance(value, Mapping) and ("_target_" in value or all(_fits(known, v) for v in value.values()))
    if issubclass(kind, date):
        return isinstance(value, str) and _is_iso_date(value)
    if issubclass(kind, Path):
        return isinstance(value, str) and value != ""  # it would be the working folder
    return isinstance(value, Mapping) and "_target_" in value


def _is_iso_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_scalar(kind: type, value: Any) -> bool:
    if isinstance(value, int | float) and not abs(value) <= MOST:  # NaN is not, either
        return False
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _kind_words(hint: Any) -> str:
    """The annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind_words(one) for one in inner))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if hint is None or hint is type(None):
        return "null"
    of = _KIND_NAMES.get(inner[0]) if inner else None
    return _KIND_NAMES.get(hint) or _class_words(origin or hint, f"a list, each {of}" if of else "a list")


def _class_words(kind: Any, listed: str) -> str:
    """`_kind_words` for a class that is no scalar."""
    if kind in _LISTS:
        return listed
    if kind in _MAPPINGS:
        return "a mapping"
    if not inspect.isclass(kind):
        return "another kind"
    words = {date: "an ISO date", Path: "a path"}
    return next((text for base, text in words.items() if issubclass(kind, base)), "a part with settings of its own")


def at_its_key(refused: ValueError, full_key: str, raw: Any) -> ValueError:
    """The same error, whose last words `set KEY` name the key that was written.

    A part does not know where it stands: an auditor is a boosted model as any other. full_key: of the part in the
    configuration. raw: that configuration as it was written.
    """
    text = str(refused)
    found = SET.search(text)
    if found is None or value_at(raw, path := f"{full_key}.{found[1]}") is ...:
        return refused
    return type(refused)(f"{text[: found.start()]}; set {written_at(raw, path)}")


def written_at(raw: Any, path: str) -> str:
    """The key where a value is set, which is the target of a reference `${key}`."""
    for _ in range(8):
        parts = path.split(".")
        for k in range(1, len(parts) + 1):
            text = value_at(raw, ".".join(parts[:k]))
            if isinstance(text, str) and text.startswith("${") and text.endswith("}") and ":" not in text:
                path = ".".join([text[2:-1], *parts[k:]])
                break
        else:
            break
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
