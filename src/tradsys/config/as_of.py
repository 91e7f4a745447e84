"""`data.as_of=2026-03-01`: every stored source is read as it was at that moment."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

STORED, KNOWN = "tradsys.market.store.StoredBars", "tradsys.market.known.KnownSource"


def spread_as_of(config: DictConfig) -> DictConfig:
    """The config with its `data.as_of` copied into every stored source of its data."""
    data = OmegaConf.select(config, "data")
    moment = data.get("as_of") if isinstance(data, DictConfig) else None
    if moment is not None:
        _set(data, str(moment))
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


def _set(node: Any, moment: str, last: str | None = None) -> None:
    if isinstance(node, ListConfig):
        for one in node:
            _set(one, moment, last)
    if not isinstance(node, DictConfig):
        return
    if node.get("_target_") == STORED:
        with open_dict(node):
            node.as_of = moment
            node.end = node.get("end") or last
    if node.get("_target_") == KNOWN:
        with open_dict(node):
            node.as_of = moment
    for key in map(str, node):
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            _set(node[key], moment, last)
