"""Bars of commands that use a bundle: those of `data=`, or those it was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from tradsys.config.compose import build, compose
from tradsys.config.own_data import is_exchange
from tradsys.config.trusted import built_source
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Config
from tradsys.core.received import override_key


def split_data_keys(argv: Sequence[str], own_keys: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Splits overrides into the command's own and those of the data config.

    `data=` becomes data_choice= of the command. own_keys: keys of the command that the data config has as well; with
    data= both read them. `data` is a config group of train, so Hydra would look for it in the command's config.
    """
    named = any(one.startswith("data=") for one in argv)
    rest, data = [], []
    for one in argv:
        key = one.split("=")[0]
        if key in ("symbols", "market_symbol") or key.startswith("data."):
            if key not in own_keys or named:
                data.append(one)
            if key not in own_keys:
                continue
        rest.append(f"data_choice={one[5:]}" if one.startswith("data=") else one)
    return rest, data


def with_costs_of(data_config: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The overrides, with costs=stocks for exchange data without chosen costs.

    data_config: of a bundle. Every calendar except 24/7 and 24/5 is an exchange's.
    """
    chosen = any(override_key(one) == "costs" for one in overrides)
    stocks = is_exchange(data_config.get("calendar"))
    return [*overrides, "costs=stocks"] if stocks and not chosen else list(overrides)


def named_source(plain: Config, bundle: Any, data: Sequence[str], command: str) -> Any:
    """The source of the data config named by `data=`, else the source of the bundle.

    Raises DataError where data overrides are given without `data=`.
    """
    if plain["data_choice"] is None:
        if data:
            raise DataError(f"{command}: {data[0]} needs a data config to change; give data= too, such as data=stored")
        return built_source(bundle.data_config(), f"bundle {bundle.folder}")
    chosen = [f"data={plain['data_choice']}", f"paths.data={plain['paths']['data']}", *data]
    found = OmegaConf.to_container(compose("train", chosen).data, resolve=True)
    return build(OmegaConf.create({"data": found}))["data"]["source"]
