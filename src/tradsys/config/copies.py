"""Copies, plain values and objects of OmegaConf's nodes, several times as fast as its own."""

import copy
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, ValueNode, open_dict
from omegaconf.errors import OmegaConfBaseException

from tradsys.core.plain_data import Config


def copied(config: DictConfig) -> DictConfig:
    """The copy of `copy.deepcopy`: it shares its parent and nothing else."""
    return cast(DictConfig, _copy_of(config, config.__dict__["_parent"]))


def objects_of(config: DictConfig) -> Config:
    """Hydra's objects of a config, as plain Python."""
    own = copied(config)
    with open_dict(own):
        own["_convert_"] = "all"  # Hydra would merge an argument of `instantiate` into one more copy
    return cast(Config, instantiate(own))


def written(config: DictConfig) -> Any:
    """`OmegaConf.to_container`: plain values, interpolations as texts."""
    return _plain_of(config, resolve=False)


def resolved(config: DictConfig) -> Any:
    """`OmegaConf.to_container` with `resolve`: plain values, interpolations followed.

    Raises what it raises.
    """
    try:
        return _plain_of(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(config, resolve=True)  # whose error names the key


def _plain_of(node: Any, *, resolve: bool) -> Any:
    if resolve and isinstance(text := node._value(), str) and "${" in text:
        node = node._dereference_node()
    content = node._value()
    if isinstance(node, DictConfig) and isinstance(content, dict):
        return {key: _plain_of(inner, resolve=resolve) for key, inner in content.items()}
    if isinstance(node, ListConfig) and isinstance(content, list):
        return [_plain_of(inner, resolve=resolve) for inner in content]
    return content


def _copy_of(node: Any, parent: Any) -> Any:
    if isinstance(node, DictConfig | ListConfig):
        new = _with_own_fields(node, parent)
        content = new.__dict__["_content"]
        if isinstance(content, dict):
            new.__dict__["_content"] = {key: _copy_of(value, new) for key, value in content.items()}
        elif isinstance(content, list):
            new.__dict__["_content"] = [_copy_of(value, new) for value in content]
        return new
    if isinstance(node, ValueNode):  # `copy.deepcopy` shares its value too, and drops what is known of its flags
        new = _with_own_fields(node, parent)
        new.__dict__["_flags_cache"] = None
        return new
    new = copy.deepcopy(node)
    new.__dict__["_parent"] = parent
    return new


def _with_own_fields(node: Any, parent: Any) -> Any:
    """A node with the same content, and its own flags and other metadata."""
    new, metadata = object.__new__(type(node)), node.__dict__["_metadata"]
    own = object.__new__(type(metadata))
    own.__dict__.update(metadata.__dict__)
    for name, value in metadata.__dict__.items():
        if isinstance(value, dict):  # the rest is types, flags and texts
            own.__dict__[name] = copy.deepcopy(value) if value else copy.copy(value)
    known_flags = node.__dict__["_flags_cache"]
    new.__dict__.update(node.__dict__)
    new.__dict__.update(_metadata=own, _parent=parent, _flags_cache=known_flags and dict(known_flags))
    return new
