"""`data.as_of=2026-03-01`: every stored source is read as it was at that moment."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from tradsys.config.explain import ConfigError

STORED, KNOWN = "tradsys.market.store.StoredBars", "tradsys.market.known.KnownSource"


def spread_as_of(config: DictConfig) -> DictConfig:
    """The config with `data.as_of` copied into every stored source of its data."""
    data = OmegaConf.select(config, "data")
    moment = data.get("as_of") if isinstance(data, DictConfig) else None
    if moment is not None and not _set(data, str(moment)) and "${data.as_of}" not in OmegaConf.to_yaml(data):
        raise ConfigError(
            f"config: data.as_of={moment}, and no source of these data keeps what was known when; stored bars and "
            "downloads with a ledger of revisions do; leave data.as_of out, or give data=NAME of the store"
        )
    return config


def with_as_of(config: DictConfig, moment: str, last: str | None = None) -> DictConfig:
    """A copy of a config whose stored sources are read as of that moment.

    last: close of the last bar at that moment. It becomes the end of sources without an end: bars of the past may have
    been added since.
    """
    copy: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    with open_dict(copy):
        copy.data.as_of = moment
    _set(copy.data, moment, last)
    return copy


def _set(node: Any, moment: str, last: str | None = None) -> int:
    """Sets the moment in every stored source below the node; returns their number."""
    if isinstance(node, ListConfig):
        return sum(_set(one, moment, last) for one in node)
    if not isinstance(node, DictConfig):
        return 0
    is_source = node.get("_target_") in (STORED, KNOWN)
    if is_source:
        with open_dict(node):
            node.as_of = moment
            if node.get("_target_") == STORED:
                node.end = node.get("end") or last
    inner = [k for k in map(str, node) if not OmegaConf.is_interpolation(node, k) and not OmegaConf.is_missing(node, k)]
    return is_source + sum(_set(node[key], moment, last) for key in inner)
