"""Hydra's composition of a command; what the chosen groups make is kept, and single keys are set on a copy of it.

A study composes one configuration for every trial and variant, and most of them differ in single keys alone. Hydra
builds its list of defaults from the choices of groups and applies the keys afterwards, so the two steps come apart:
the first costs some 300 ms, a copy and the keys 20 ms.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tradsys.config.own_data import OwnFolders
from tradsys.config.packages import check_names, conf_packages

REFUSALS = (HydraException, OmegaConfBaseException, ValueError, TypeError)


def composed(conf: Path, command: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Hydra's config of a command: conf/, the project's own, installed packages'. Raises what Hydra raises.

    with_hydra: keep Hydra's own node, which knows the choice of every group.
    """
    folders = searched_folders(conf)
    parted = _parted(folders, overrides)
    if parted is None or (with_hydra and parted[1]):
        return _composed_anew(conf, command, overrides, with_hydra=with_hydra)
    groups, keys = parted
    try:
        config = copy.deepcopy(_composed_groups(conf, command, tuple(groups), with_hydra, files_of(folders)))
        ConfigLoaderImpl._apply_overrides_to_config(keys, config)
    except REFUSALS:  # in Hydra's own words for the whole command line
        return _composed_anew(conf, command, overrides, with_hydra=with_hydra)
    return config


def of_groups(conf: Path, command: str, groups: Sequence[str]) -> DictConfig:
    """What these choices of groups make, as it is kept: to be read and never changed."""
    return _composed_groups(conf, command, tuple(groups), False, files_of(searched_folders(conf)))


def project_conf(conf: Path) -> Path:
    """The project's own configuration, which promotion writes to: conf/ of the working folder.

    In a checkout of tradsys, whose conf/ belongs to the repository, it is project/conf/.
    """
    own = Path.cwd() / "conf"
    return Path.cwd() / "project" / "conf" if own.is_dir() and own.samefile(conf) else own


def searched_folders(conf: Path) -> tuple[Path, ...]:
    """Every folder that Hydra reads configurations from."""
    return (*OwnFolders.folders, conf, project_conf(conf), *conf_packages().values())


def files_of(folders: Sequence[Path]) -> tuple[tuple[Path, int, int], ...]:
    """Every configuration file with its time of change and size."""
    found = [(path, path.stat()) for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in found)


def groups_and_keys(conf: Path, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that choose groups, and the dotted paths that others set; no paths where only Hydra can say.

    An override with a mapping sets its key and every path inside it.
    """
    parsed, folders = _as_read(overrides), searched_folders(conf)
    if parsed is None:
        return list(overrides), []
    chooses = [_chooses_group(folders, one) for one in parsed]
    setting = [o for o, group in zip(parsed, chooses, strict=True) if not (group or o.is_add() or o.is_delete())]
    groups = [text for text, group in zip(overrides, chooses, strict=True) if group]
    return groups, [path for one in setting for path in _inner_keys(one.key_or_group, one.value())]


def _inner_keys(key: str, value: Any) -> Iterator[str]:
    """A key, and the dotted path of every key inside its value."""
    yield key
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _inner_keys(f"{key}.{name}", inner)


def _chooses_group(folders: Sequence[Path], override: Override) -> bool:
    return _names_group(folders, override) and not isinstance(override.value(), dict)


def _names_group(folders: Sequence[Path], override: Override) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _as_read(overrides: Sequence[str]) -> list[Override] | None:
    """The overrides as Hydra reads them; None where one has no such form or asks for a sweep or Hydra's own keys."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return None
    return None if any(one.is_hydra_override() or one.is_sweep_override() for one in parsed) else parsed


def _parted(folders: Sequence[Path], overrides: Sequence[str]) -> tuple[list[str], list[Override]] | None:
    """The overrides that choose groups, and those that set keys; None where only Hydra can say which is which."""
    if (parsed := _as_read(overrides)) is None:
        return None
    groups, keys = [], []
    for text, one in zip(overrides, parsed, strict=True):
        if _chooses_group(folders, one):
            groups.append(text)
        elif _names_group(folders, one):
            return None  # sets keys of a group, in its turn among the others
        else:
            keys.append(one)
    return groups, keys


@lru_cache(maxsize=64)
def _composed_groups(
    conf: Path,
    command: str,
    groups: tuple[str, ...],
    with_hydra: bool,
    files: tuple[tuple[Path, int, int], ...],  # noqa: ARG001
) -> DictConfig:
    """files: part of the key of what is kept."""
    return _composed_anew(conf, command, groups, with_hydra=with_hydra)


def _composed_anew(conf: Path, command: str, overrides: Sequence[str], *, with_hydra: bool) -> DictConfig:
    packages = conf_packages()
    check_names(conf, packages)
    folders = [folder for folder in (project_conf(conf), *packages.values()) if folder.is_dir()]
    quoted = ",".join("'file://{}'".format(str(folder).replace("'", "\\'")) for folder in folders)
    searched = [f"hydra.searchpath=[{quoted}]"] if folders else []
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        return hydra.compose(command, [*overrides, *searched], return_hydra_config=with_hydra)
