"""Hydra's loader, which merges all files of a composition in one step.

Hydra merges one after the other, and visits every node of the result after each. That was a third of a composition,
and its copies of what it sets into a package another third. The ten files of its own node were a third of what is left.
"""

from collections.abc import Sequence
from dataclasses import replace

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ResultDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from tradsys.config.copies import copied


class MergingLoader(ConfigLoaderImpl):
    """Composes what Hydra's loader composes, from one merge.

    `chosen` leaves Hydra's own node out.
    """

    def chosen(self, command: str, overrides: Sequence[str]) -> DictConfig | None:
        """The command's config under these choices of groups.

        None where a file sets keys of Hydra's own node. overrides: choices of groups, and keys of Hydra for the
        composition alone, such as its search path. Raises what Hydra raises.
        """
        parsed, files = self._parse_overrides_and_create_caching_repo(command, list(overrides))
        found = create_defaults_list(files, command, parsed, prepend_hydra=False, skip_missing=False)
        config = self._compose_config_from_defaults_list(found.defaults, files)
        if "hydra" in config:
            return None
        OmegaConf.set_struct(config, True)
        self._apply_overrides_to_config([o for o in found.config_overrides if not o.is_hydra_override()], config)
        return config

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        merged = OmegaConf.create()
        loaded = [self._load_single_config(default, repo).config for default in defaults]
        try:
            with flag_override(merged, "no_deepcopy_set_nodes", True):
                merged.merge_with(*loaded)
        except OmegaConfBaseException:
            return super()._compose_config_from_defaults_list(defaults, repo)  # whose error names the file
        return super()._compose_config_from_defaults_list([ResultDefault(config_path="", primary=True)], _Held(merged))

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        package = ret.header["package"] if package_override is None else package_override
        if not package or not isinstance(ret.config, DictConfig):
            return ConfigLoaderImpl._embed_result_config(ret, package_override)
        embedded = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
        OmegaConf.update(embedded, package, copied(ret.config), merge=False)  # a file may be in several packages
        return replace(ret, config=embedded)


class _Held(ConfigRepository):
    """A repository of one file, which is parsed already."""

    def __init__(self, config: DictConfig) -> None:
        self._held = ConfigResult(provider="", path="", config=config, header={"package": None}, is_schema_source=True)

    def load_config(self, config_path: str) -> ConfigResult:  # noqa: ARG002
        return self._held
