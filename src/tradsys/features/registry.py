"""Feature classes by name, so that a bundle stores its features as JSON and rebuilds exactly these."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from tradsys.core.errors import BundleError, DataError
from tradsys.core.extensions import load_part
from tradsys.core.plain_data import Json
from tradsys.core.protocols import Feature

C = TypeVar("C", bound=type)
CLASSES: dict[str, type] = {}


def _own_bars(feature: Any) -> int:
    """The default warm-up: the feature's `bars`; 0 without such a parameter."""
    return int(getattr(feature, "bars", 0))


class Column:
    """Base of features: derives name, warm-up and columns from the parameters.

    Class arguments: name, a template of parameters such as "rsi_{bars}". warmup, a function of the feature; by default
    its `bars`. A feature whose name or warm-up is no such formula defines the property itself.
    """

    _template: ClassVar[str]
    _rows: ClassVar[Callable[[Any], int]] = staticmethod(_own_bars)

    def __init_subclass__(cls, *, name: str | None = None, warmup: Callable[[Any], int] | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            cls._template = name
        if warmup is not None:
            cls._rows = staticmethod(warmup)

    @property
    def name(self) -> str:
        """Column name with its parameters."""
        return self._template.format_map(vars(self))

    @property
    def warmup(self) -> int:
        """Rows that must precede a row before its value no longer depends on earlier ones."""
        return type(self)._rows(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the bars, right of `volume`, that the feature reads."""
        return (self.column,) if hasattr(self, "column") else ()


def register(cls: C) -> C:
    """Class decorator: registers a frozen dataclass by its name.

    Raises DataError for a second one of that name.
    """
    if CLASSES.get(cls.__name__, cls).__module__ != cls.__module__:
        raise DataError(
            f"features: class {cls.__name__!r} is defined in {CLASSES[cls.__name__].__module__} and in "
            f"{cls.__module__}; bundles find classes by name; rename one"
        )
    CLASSES[cls.__name__] = cls
    return cls


def feature_to_json(feature: Feature) -> Json:
    """`{"class": name, **parameters}`.

    Raises DataError for a class that is not registered.
    """
    name = type(feature).__name__
    if CLASSES.get(name) is not type(feature) or not dataclasses.is_dataclass(feature):
        raise DataError(
            f"features: {name} is not a registered dataclass, so a bundle could not rebuild it; "
            f"decorate it with features.registry.register above dataclass(frozen=True)"
        )
    return {"class": name, **dataclasses.asdict(feature)}


def is_known(name: str) -> bool:
    """Whether a feature of this class can be rebuilt here."""
    return name in CLASSES or _of_extension(name) is not None


def _of_extension(name: str) -> type | None:
    """The registered class of an installed package; DataError where it is no dataclass."""
    cls = load_part("feature", name)
    if cls is not None and not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise DataError(f"features: {name} of an installed package is no dataclass; a feature is one; fix the package")
    return None if cls is None else register(cls)


def feature_from_json(entry: Mapping[str, Any]) -> Feature:
    """The feature that `feature_to_json` described.

    Raises BundleError on an unknown class or parameter.
    """
    params = dict(entry)
    name = params.pop("class", None)
    cls = CLASSES.get(str(name)) or _of_extension(str(name))
    if cls is None:
        raise BundleError(
            f"features: unknown class {name!r}, known are {sorted(CLASSES)}; "
            f"import the module that registers it, or use the version of tradsys that wrote the bundle"
        )
    known = {field.name for field in dataclasses.fields(cls)}
    if set(params) - known:
        raise BundleError(
            f"features: {name} has no parameters {sorted(set(params) - known)}, only {sorted(known)}; "
            f"use the version of tradsys that wrote the bundle"
        )
    missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in params]
    if missing:
        raise BundleError(f"features: {name} needs {missing}, which the bundle does not hold; export it again")
    made: Feature = cls(**params)
    return made
