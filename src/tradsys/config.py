"""The doors' one way in: compose conf/, build plain objects, turn a user's mistake into one line and exit code 2."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from tradsys.ops.container import read_container, settle_threads

# numpy, torch, numba and polars count threads once, when they are loaded; doors import this module before any of them
settle_threads(os.environ, read_container())

PACKAGE = Path(__file__).parent
STDERR = Console(stderr=True, soft_wrap=True)


class ConfigError(ValueError):
    """A key, group or value that conf/ does not know."""


def conf_folder() -> Path:
    """The conf/ of the installed package, or of the checkout it runs from."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "conf"


def compose(door: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a door with overrides applied; ConfigError names the nearest valid key or choice."""
    _check_study(door, overrides)
    try:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return hydra.compose(door, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(door, overrides, error)) from error


def build(config: DictConfig) -> dict[str, Any]:
    """Every `_target_` in the config as its object, the rest as plain values; {}, a group's `none`, is None."""
    try:
        return {key: None if part == {} else part for key, part in instantiate(config, _convert_="all").items()}
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):  # a constructor refused the value: its own words are the clear ones
            raise cause from None
        raise ConfigError(f"config: {str(error).splitlines()[0]} ({cause})") from error


def as_dict(config: DictConfig) -> dict[str, Any]:
    """The config as plain, resolved values; a missing mandatory value (`???`) is a ConfigError."""
    missing = OmegaConf.missing_keys(config)
    if missing:
        key = sorted(missing)[0]
        raise ConfigError(f"config: {key!r} has no value; it has no default; give {key}=...")
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def run_door(name: str, main: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> None:
    """Runs a door: --help, its work, and one clear line with exit code 2 where the user can mend the cause."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(a in ("-h", "--help") for a in arguments):
        Console(soft_wrap=True).print(help_text(name, main), markup=False, highlight=False)
        return
    try:
        main(arguments)
    except KeyboardInterrupt:
        STDERR.print("interrupted", markup=False)
        sys.exit(130)
    except (ValueError, OmegaConfBaseException) as error:
        if not _is_users(error) or os.environ.get("TRADSYS_TRACEBACK"):
            raise
        STDERR.print(f"error: {error}", markup=False, highlight=False, style="red")
        sys.exit(2)


def help_text(name: str, main: Callable[[list[str]], None]) -> str:
    """What the door does, its groups with their choices, and its keys with their defaults."""
    config = compose(name, [])
    groups = {g: _choices(g) for g in sorted(p.name for p in conf_folder().iterdir() if p.is_dir())}
    asked_for = {
        "train": ("experiment",),
        "tune": ("experiment",),
        "doctor": ("experiment",),
        "audit": ("experiment", "study"),
        "compare": ("study",),
    }.get(name, ())
    used = {g: c for g, c in groups.items() if c and (g in config or g in asked_for)}
    if "study" in used:
        used["study"] = studies(name)
    if "data" in config and name != "train":
        used["data"] = groups["data"]
    width = max((len(g) for g in used), default=0)
    lines = [(sys.modules[main.__module__].__doc__ or "").strip(), ""]
    if used:
        lines += ["Groups (group=choice; experiment with a leading +):"]
        lines += [f"  {g:<{width}}  {' | '.join(c)}" for g, c in used.items()] + [""]
    lines += ["Keys (key=value):"]
    plain = OmegaConf.to_container(config, resolve=False)
    lines += [f"  {key}={_short(value)}" for key, value in _leaves(plain) if key.count(".") < 2]
    return "\n".join(lines)


def studies(door: str) -> list[str]:
    """The studies that a door takes: audit's change the whole config (`@package _global_`), compare's only `study`."""
    files = {name: conf_folder() / "study" / f"{name}.yaml" for name in _choices("study")}
    audits = [n for n, path in files.items() if "@package _global_" in path.read_text(encoding="utf-8").split("\n")[0]]
    return audits if door == "audit" else [name for name in files if name not in audits]


def _check_study(door: str, overrides: Sequence[str]) -> None:
    """ConfigError where a study of the other door is asked for; it would compose into something else."""
    other = {"compare": "audit", "audit": "compare"}.get(door)
    for override in overrides if other else ():
        key, _, name = override.partition("=")
        name = name.strip("'\"")
        if key.lstrip("+") == "study" and other and name in studies(other):
            raise ConfigError(
                f"config: study {name!r} is one of {other}'s; {door} takes {', '.join(studies(door))}; "
                f"choose one of these, or python -m tradsys.{other}"
            )


def _choices(group: str) -> list[str]:
    return sorted(p.stem for p in (conf_folder() / group).glob("*.yaml"))


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{path}.")
        elif key not in ("_target_", "_partial_"):
            yield path, inner


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explained(door: str, overrides: Sequence[str], error: Exception) -> str:
    """One line: which override is wrong and what comes nearest."""
    first = str(error).strip().splitlines()[0]
    if "Could not find" in first:  # a choice that its group lacks
        group, _, choice = re.findall(r"'([^']+)'", first)[-1].rpartition("/")
        known = _choices(group)
        return (
            f"config: {group}={choice} does not exist; {_nearest(choice, known)}; known: {', '.join(known) or 'none'}"
        )
    study = [o for o in overrides if o.lstrip("+").startswith("study=")]  # whose keys are known only with it
    config = OmegaConf.to_container(compose(door, study if list(overrides) != study else []), resolve=False)
    keys = [key for key, _ in _leaves(config)]
    parents = {".".join(key.split(".")[:i]) for key in keys for i in range(1, key.count(".") + 1)}
    groups = [p.name for p in conf_folder().iterdir() if p.is_dir()]
    known = sorted({*keys, *parents, *groups})
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key not in known:
            return f"config: unknown key {key!r} in {override!r}; {_nearest(key, known)}; see --help"
    return f"config: {first}"


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else "nothing comes near"


def _is_users(error: BaseException) -> bool:
    """True where our own code raised the error on purpose; a library's ValueError is a bug and keeps its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
