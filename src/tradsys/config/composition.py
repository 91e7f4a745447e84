"""Composes a command's config with Hydra; caches the result of the chosen groups.

A study composes one configuration for every trial and variant, and most of them differ in single keys alone. Hydra
first builds its list of defaults from the chosen groups, then applies single keys. The first step costs some 40 ms and
is cached; copying its result and setting keys costs 5 ms. A file is parsed twice at most; parsing was a third of the
total.
"""

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra._internal import defaults_list as hydras_lists
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.default_element import InputDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig
from omegaconf import _utils as omegaconf_utils
from omegaconf import base as omegaconf_base
from omegaconf.errors import OmegaConfBaseException

from tradsys.config.copies import copied
from tradsys.config.merging_loader import MergingLoader
from tradsys.config.own_data import OwnFolders
from tradsys.config.packages import check_names, conf_packages

Files = tuple[tuple[str, int, int], ...]
Parsed = dict[tuple[str, ...], ConfigResult | None]
OWN_LOADER: Any = omegaconf_utils.get_yaml_loader()
# the same numbers, texts and refusals of duplicate keys, on the parser in C
IN_C: Any = type("LoaderInC", (yaml.CSafeLoader, OWN_LOADER), {}) if yaml.__with_libyaml__ else OWN_LOADER
MOST_IN_C = 16_384  # characters: in C nothing bounds the depth, and some 20,000 brackets end the process
REFUSALS = (HydraException, OmegaConfBaseException, ValueError, TypeError)


def yaml_loader(stream: Any) -> Any:
    """The loader of a text or of an open file: the one in C for what is small."""
    if not hasattr(stream, "read"):
        return (IN_C if len(stream) <= MOST_IN_C else OWN_LOADER)(stream)
    is_small = len(stream.read(MOST_IN_C + 1)) <= MOST_IN_C
    stream.seek(0)
    return (IN_C if is_small else OWN_LOADER)(stream)


# for OmegaConf.load, which Hydra reads every file with; the parser in Python took a fifth of a composition
omegaconf_utils.get_yaml_loader = lambda: yaml_loader


# configurations of a study hold the same interpolations, resolved some ten times each; to parse one takes half a ms
omegaconf_base.parse = lru_cache(maxsize=1024)(omegaconf_base.parse)


def _map_where_read(overrides: Any, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
    """Hydra's map of choices for interpolations in a list of defaults; an empty one for a list without any."""
    is_read = any(not one.is_self() and one.is_interpolation() for one in defaults_list)
    return _choices_map(overrides, defaults_list, self_added) if is_read else NO_CHOICES


# Hydra makes one for every file, and reads it where a default holds `${`; that was a quarter of a composition
_choices_map: Any = hydras_lists._create_interpolation_map
hydras_lists._create_interpolation_map = _map_where_read
NO_CHOICES = DictConfig({})


def composed(conf: Path, command: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Hydra's config of a command: conf/, the project's own, installed packages'.

    Raises what Hydra raises. with_hydra: keep Hydra's own node, which knows the choice of every group.
    """
    folders = searched_folders(conf)
    files, parted = files_of(folders), _parted(folders, overrides)
    if parted is None or (with_hydra and parted[1]):
        return _composed_anew(conf, command, overrides, {}, with_hydra=with_hydra)
    groups, keys = parted
    try:
        config = copied(_composed_groups(conf, command, tuple(groups), with_hydra, files))
        ConfigLoaderImpl._apply_overrides_to_config(keys, config)
    except REFUSALS:  # Hydra's own error is about the complete command line
        return _composed_anew(conf, command, overrides, _parsed_files(files), with_hydra=with_hydra)
    return config


def of_groups(conf: Path, command: str, groups: Sequence[str]) -> DictConfig:
    """The cached config of these group choices; callers must not change it."""
    return _composed_groups(conf, command, tuple(groups), False, files_of(searched_folders(conf)))


def project_conf(conf: Path) -> Path:
    """The user's own configuration folder, which promotion writes to.

    It is conf/ of the working folder. In a checkout of tradsys, whose conf/ belongs to the repository, it is
    project/conf/.
    """
    own = Path.cwd() / "conf"
    return Path.cwd() / "project" / "conf" if own.is_dir() and own.samefile(conf) else own


def searched_folders(conf: Path) -> tuple[Path, ...]:
    """Every folder that Hydra reads configurations from."""
    return (*OwnFolders.folders, conf, project_conf(conf), *conf_packages().values())


def files_of(folders: Sequence[Path]) -> Files:
    """Every configuration file with its time of change and size."""
    walked = (top for folder in folders for top in os.walk(folder))
    paths = sorted(os.path.join(top, name) for top, _, names in walked for name in names if name.endswith(".yaml"))
    found = [(path, os.stat(path)) for path in paths]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in found)


def groups_and_keys(conf: Path, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that choose groups, and the dotted paths that the others set.

    The paths are empty where only Hydra can tell the two apart.

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
    """The parsed overrides; None where one is malformed, a sweep or a key of Hydra's."""
    try:
        parsed = [_as_one(text) for text in overrides]
    except HydraException:
        return None
    return None if any(one.is_hydra_override() or one.is_sweep_override() for one in parsed) else parsed


@lru_cache(maxsize=512)
def _as_one(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _parted(folders: Sequence[Path], overrides: Sequence[str]) -> tuple[list[str], list[Override]] | None:
    """Overrides that choose groups, those that set keys; None where only Hydra can tell."""
    if (parsed := _as_read(overrides)) is None:
        return None
    groups, keys = [], []
    for text, one in zip(overrides, parsed, strict=True):
        if _chooses_group(folders, one):
            groups.append(text)
        elif _names_group(folders, one):
            return None  # sets keys of a group; the order among the overrides matters
        else:
            keys.append(one)
    return groups, keys


class _ParsedOnce(ConfigRepository):
    """Hydra's file repository, which parses a file twice at most while no file changes."""

    def __init__(self, sources: list[ConfigSource], parsed: Parsed) -> None:
        self.sources, self._parsed = sources, parsed

    def load_config(self, config_path: str) -> ConfigResult | None:
        key = (config_path, *(str(source.path) for source in self.sources))
        if kept := self._parsed.get(key):
            return _copied_result(kept)  # Hydra changes what it loads
        loaded = super().load_config(config_path)
        # cached from the second time on: a command that composes once makes no copy
        self._parsed[key] = _copied_result(loaded) if loaded is not None and key in self._parsed else None
        return loaded

    def __deepcopy__(self, memo: dict[int, Any]) -> "_ParsedOnce":
        return _ParsedOnce(list(self.sources), self._parsed)  # Hydra copies it for each composition, to set the list


def _copied_result(loaded: ConfigResult) -> ConfigResult:
    whole = isinstance(loaded.config, DictConfig)
    config = copied(cast(DictConfig, loaded.config)) if whole else copy.deepcopy(loaded.config)
    return replace(loaded, config=config, header=dict(loaded.header), defaults_list=copy.deepcopy(loaded.defaults_list))


@lru_cache(maxsize=4)
def _parsed_files(files: Files) -> Parsed:  # noqa: ARG001
    """Cache of parsed files, keyed by path and search folders; empty for new `files`."""
    return {}


@lru_cache(maxsize=64)
def _composed_groups(conf: Path, command: str, groups: tuple[str, ...], with_hydra: bool, files: Files) -> DictConfig:
    """The composed config of group choices. files: part of the cache key."""
    parsed = _parsed_files(files)
    if not with_hydra:
        with _loader_of(conf, parsed) as (loader, searched):
            if (config := loader.chosen(command, [*groups, *searched])) is not None:
                return config
    return _composed_anew(conf, command, groups, parsed, with_hydra=with_hydra)


def _composed_anew(
    conf: Path, command: str, overrides: Sequence[str], parsed: Parsed, *, with_hydra: bool
) -> DictConfig:
    with _loader_of(conf, parsed) as (_, searched):
        return hydra.compose(command, [*overrides, *searched], return_hydra_config=with_hydra)


@contextlib.contextmanager
def _loader_of(conf: Path, parsed: Parsed) -> Iterator[tuple[MergingLoader, list[str]]]:
    """Hydra initialised for conf/ with the loader that it uses, and the overrides that add the other folders."""
    packages = conf_packages()
    check_names(conf, packages)
    folders = [folder for folder in (project_conf(conf), *packages.values()) if folder.is_dir()]
    quoted = ",".join("'file://{}'".format(str(folder).replace("'", "\\'")) for folder in folders)
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        hydras_own = cast(Hydra, GlobalHydra.instance().hydra)
        loader = MergingLoader(hydras_own.config_loader.get_search_path())
        loader.repository = _ParsedOnce(loader.repository.sources, parsed)
        hydras_own.config_loader = loader
        yield loader, [f"hydra.searchpath=[{quoted}]"] if folders else []
