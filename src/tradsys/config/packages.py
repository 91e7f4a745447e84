"""Configuration folders of other packages, registered under the entry point `tradsys.conf`.

An entry's value is the folder's dotted path, such as `my_alphas.conf`. The folder is found without running the package.
"""

import functools
import importlib.metadata
import logging
from importlib.util import find_spec
from pathlib import Path

from tradsys.core.errors import TradsysError

GROUP = "tradsys.conf"
LOG = logging.getLogger(__name__)


@functools.cache
def conf_packages() -> dict[str, Path]:
    """Conf folder by distribution; a missing folder is logged and left out."""
    found: dict[str, Path] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        name = entry.dist.name if entry.dist is not None else entry.name
        folder = _package_folder(entry.value)
        if folder is None:
            LOG.warning("config: package %s registers %s, which is no folder; it is left out", name, entry.value)
        else:
            found[name] = folder
    return found


def check_names(conf: Path, packages: dict[str, Path]) -> None:
    """Raises TradsysError where a file of one config folder would hide another."""
    owner = {path: "tradsys" for path in _yaml_files(conf)} if packages else {}
    for name, folder in packages.items():
        for path in _yaml_files(folder):
            if path in owner:
                raise TradsysError(
                    f"config: {path} is in the packages {owner[path]} and {name}; one would hide the other; rename it "
                    "in one of them, or uninstall one"
                )
            owner[path] = name


def _package_folder(dotted: str) -> Path | None:
    top, *rest = dotted.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(place, *rest) for place in places or ()]
    return next((folder for folder in folders if folder.is_dir()), None)


def _yaml_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
