"""Parts of other packages: classes that installed distributions register under the entry point `tradsys.parts`.

An entry's name is `<place>.<class>`, its value `package.module:Class`. Only that exact name is registered, only at that
place. Nothing is imported before the part is used.
"""

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradsys.core.errors import BundleError, TradsysError, TrainingError
from tradsys.core.received import one_line

GROUP = "tradsys.parts"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")  # PEP 508; excludes options and paths
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,98}")


@dataclass(frozen=True)
class Part:
    """A registered class.

    name: full dotted name. package, version: of the distribution that registers it.
    """

    place: str
    name: str
    package: str
    version: str
    entry: importlib.metadata.EntryPoint

    @property
    def class_name(self) -> str:
        """The class's own name, by which a bundle stores a feature."""
        return self.name.rpartition(".")[2]


@functools.cache
def installed_parts() -> tuple[Part, ...]:
    """Every part that an installed distribution registers.

    Malformed entries are ignored.
    """
    found = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        place, dot, _ = entry.name.partition(".")
        if dot and entry.dist is not None and entry.attr.isidentifier():
            name = f"{entry.module}.{entry.attr}"
            found.append(Part(place, name, entry.dist.name, entry.dist.version, entry))
    return tuple(found)


def names_at(place: str) -> frozenset[str]:
    """Full names of the classes of other packages that are registered for a place."""
    return frozenset(part.name for part in installed_parts() if part.place == place)


def has_part(place: str, class_name: str) -> bool:
    """Whether an installed package registers a class of this name at a place.

    Nothing is imported.
    """
    return any((p.place, p.class_name) == (place, class_name) for p in installed_parts())


def load_part(place: str, class_name: str) -> Any:
    """The class of another package with this name at a place.

    None where no installed package registers one. BundleError, with the package's name, where importing it fails.
    """
    part = next((p for p in installed_parts() if (p.place, p.class_name) == (place, class_name)), None)
    if part is None:
        return None
    try:
        return part.entry.load()
    except Exception as error:
        raise BundleError(
            f"extensions: {part.name} of the package {part.package} {part.version} cannot be loaded "
            f"({type(error).__name__}: {one_line(error, 120)}); fix that package or uninstall it"
        ) from error


def part_files() -> dict[str, Path]:
    """Path of the code of each package that registers parts, by `<module>:`.

    Imports nothing. A package in development mode keeps its version while its files change.
    """
    found = {}
    for top in sorted({part.name.partition(".")[0] for part in installed_parts()}):
        spec = importlib.util.find_spec(top)
        places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        if places and places[0]:
            found[f"{top}:"] = Path(places[0])
    return found


def is_own(cls: type) -> bool:
    """Whether a class is part of tradsys itself."""
    return cls.__module__.partition(".")[0] == "tradsys"


def answer(part: Any, method: str, *given: Any, kind: type | tuple[type, ...]) -> Any:
    """The return value of a part's method; TrainingError where its type is wrong.

    An outside part's exception becomes a TrainingError too, unless it is a TradsysError or an OSError of the disk.
    """
    cls = type(part)
    try:
        found = getattr(part, method)(*given)
    except TradsysError:
        raise
    except Exception as error:
        if is_own(cls) or getattr(error, "errno", None) is not None:
            raise
        raise TrainingError(
            f"{cls.__module__}.{cls.__name__}: its {method} raised {one_line(error)}; it is no part of tradsys; fix "
            "it there; TRADSYS_TRACEBACK=1 shows where"
        ) from error
    if not isinstance(found, kind):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise TrainingError(
            f"{cls.__module__}.{cls.__name__}: its {method} returned {one_line(repr(found), 60)}, a "
            f"{type(found).__name__}; it must return a {kinds}; see docs/extensions.md"
        )
    return found


def foreign_parts(classes: Iterable[type]) -> dict[str, dict[str, str]]:
    """Package and version, by name, of each class from outside tradsys.

    Goes into a bundle's card.
    """
    tops = {cls.__name__: top for cls in classes if (top := cls.__module__.partition(".")[0]) != "tradsys"}
    return {name: _package_of(top) for name, top in tops.items()}


def registered_targets(config: Any) -> dict[str, dict[str, str]]:
    """Package and version, by name, of each registered `_target_` in a config."""
    if isinstance(config, Mapping):
        named = [part for part in installed_parts() if part.name == config.get("_target_")]
        found = {part.class_name: {"package": part.package, "version": part.version} for part in named}
        return {name: one for value in config.values() for name, one in registered_targets(value).items()} | found
    if isinstance(config, list | tuple):
        return {name: one for value in config for name, one in registered_targets(value).items()}
    return {}


def _package_of(top: str) -> dict[str, str]:
    """Name and version of the distribution that holds a top-level module.

    A distribution in development mode lists no modules; it is found by its registered parts.
    """
    for part in installed_parts():
        if part.name.partition(".")[0] == top:
            return {"package": part.package, "version": part.version}
    listed = importlib.metadata.packages_distributions()  # reads every file list, which takes half a second
    package = next(iter(listed.get(top, [])), "")
    return {"package": package, "version": importlib.metadata.version(package) if package else ""}


def is_registered(place: str, cls: type) -> bool:
    """Whether an installed package registers this very class at a place.

    Only then may a received card name it.
    """
    return f"{cls.__module__}.{cls.__qualname__}" in names_at(place)


def check_foreign(where: str, foreign: Any, is_known: Callable[[str], bool]) -> None:
    """Raises BundleError where a part from outside tradsys is not installed.

    The error names package and version. foreign: as `foreign_parts` wrote it, from a received card. is_known: whether a
    class can be imported.
    """
    if not isinstance(foreign, Mapping):
        raise BundleError(f"{where}: its card lists foreign parts as a {type(foreign).__name__}; export it again")
    for name, source in foreign.items():
        if is_known(str(name)):
            continue
        package, version = (source.get(k) if isinstance(source, Mapping) else None for k in ("package", "version"))
        if not (isinstance(package, str) and NAME.fullmatch(package)):
            raise BundleError(
                f"{where}: {str(name)[:60]!r} comes from a file that was in no installed package; register it under "
                f"the entry point {GROUP} of one, install that, and train again"
            )
        pinned = f"{package}=={version}" if isinstance(version, str) and VERSION.fullmatch(version) else package
        raise BundleError(
            f"{where}: {str(name)[:60]!r} comes from the package {package}, which is not installed here or does not "
            f"register it; if you trust it: pip install '{pinned}'"
        )
