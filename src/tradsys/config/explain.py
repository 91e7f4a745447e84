"""Explains a wrong override in one line: what is wrong, the nearest name, what to write instead.

An override is checked against the config of all chosen groups together. A key of `events=clock` is therefore valid on
a command line with events=clock, whatever else is wrong there.
"""

import difflib
import dis
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tradsys.config.composition import REFUSALS, Files, composed, files_of, project_conf, searched_folders
from tradsys.config.copies import resolved
from tradsys.config.packages import conf_packages
from tradsys.core.errors import TradsysError, nearest
from tradsys.core.plain_data import Config

FORMS = "overrides are key=value, +key=value for a new key and ~key to drop one; quote what holds , = [ ] or spaces"
MOST_NAMED = 12
LISTS = ("strategy",)  # groups that take a list of choices, which may be empty


class ConfigError(TradsysError):
    """A key, group or value that conf/ does not know."""


@dataclass(frozen=True)
class Known:
    """Keys of a command's config under some overrides, and each group's choice."""

    keys: Mapping[str, Any]
    choices: Mapping[str, Any]

    @classmethod
    def of(cls, conf: Path, command: str, overrides: Sequence[str]) -> Self:
        """The composed config, unresolved; raises what Hydra raises."""
        config = composed(conf, command, overrides, with_hydra=True)
        choices = {g: c for g, c in config.hydra.runtime.choices.items() if not g.startswith("hydra/")}
        plain: Any = OmegaConf.to_container(config, resolve=False)
        return cls({key: value for key, value in plain.items() if key != "hydra"}, choices)

    def at(self, path: str) -> Any:
        """The value there, Ellipsis where there is none."""
        return value_at(self.keys, path)


def _base(conf: Path, command: str) -> Known:
    """The command's config without overrides."""
    return _known_base(conf, command, files_of(searched_folders(conf)))


@lru_cache(maxsize=32)
def _known_base(conf: Path, command: str, files: Files) -> Known:  # noqa: ARG001
    """The command's config without overrides. files: part of the cache key."""
    return Known.of(conf, command, [])


def plain_form(conf: Path, command: str, override: str) -> str:
    """The override as Hydra takes it, with the + of `experiment=` and `study=`."""
    added = ("experiment", "study") if command == "compare" else ("experiment",)
    group, _, choice = override.partition("=")
    # no longer a setting: it is measured from the bars; older command lines still set it
    if group == "data.bar_minutes":
        return f"++{override}"
    return f"+{override}" if group in added and (conf / group).is_dir() and choice else override


def studies(conf: Path, command: str) -> list[str]:
    """Studies of a command.

    Those of audit change the complete config (`@package _global_`), those of compare only `study`.
    """
    files = _files_of(conf, "study")
    audits = [n for n, path in files.items() if "@package _global_" in path.read_text(encoding="utf-8").split("\n")[0]]
    return audits if command == "audit" else [name for name in files if name not in audits]


def choices_of(conf: Path, group: str) -> list[str]:
    """The choices of a group, sorted; none where there is no such group."""
    return list(_files_of(conf, group))


def _files_of(conf: Path, group: str) -> dict[str, Path]:
    """Each choice of a group, sorted, and the file that Hydra reads it from: the first of the searched folders."""
    folders = (conf, project_conf(conf), *conf_packages().values())
    found = {p.stem: p for folder in reversed(folders) for p in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every key that holds no further ones."""
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, f"{path}.")
        elif key not in ("_target_", "_partial_"):
            yield path, inner


def silent_mistake(conf: Path, command: str, overrides: Sequence[str]) -> str | None:
    """The error line for an override that Hydra accepts but nothing reads; else None."""
    for override in overrides:
        key, _, name = override.lstrip("+~").partition("=")
        name, other = name.strip("'\""), {"compare": "audit", "audit": "compare"}.get(command)
        if key == "study" and other and name in studies(conf, other):
            return (
                f"config: study {name!r} is one of {other}'s; {command} takes "
                f"{', '.join(studies(conf, command))}; choose one of these, or python -m tradsys.{other}"
            )
        if override.startswith("~") and (conf / key).is_dir():
            return (
                f"config: {override!r} removes a config group; every group is needed; choose another value: "
                f"{key}={' | '.join(choices_of(conf, key))}"
            )
        if name == "[]" and not override.startswith(("+", "~")) and (conf / key).is_dir() and key not in LISTS:
            return (
                f"config: {override!r} leaves a needed config group empty; choose one: "
                f"{key}={' | '.join(choices_of(conf, key))}"
            )
        if key.startswith("hydra."):
            return f"config: {override!r} is a setting of Hydra's own command line, which no command has; see --help"
    return _added_for_nothing(conf, command, [o for o in overrides if o.startswith("+") and "@" not in o])


def _added_for_nothing(conf: Path, command: str, added: Sequence[str]) -> str | None:
    """The first +key that no part of the command would ever read."""
    if _trains(conf, command):
        added = [override for override in added if override.lstrip("+").partition("=")[0] != "experiment"]
    base = _base(conf, command) if added else None
    for override in added if base else ():
        assert base is not None
        key = override.lstrip("+").partition("=")[0]
        if (conf / key).is_dir():
            studied = key == "study" and command in ("audit", "compare")
            if not (key in base.keys or studied or (key == "experiment" and "model" in base.choices)):
                return _absent_group(conf, command, override, key, base)
        elif key.split(".")[0] not in base.keys:
            return _unknown_key(conf, command, override, key, base)
    return None


def _trains(conf: Path, command: str) -> bool:
    """Whether the command's own list of defaults begins with a training's, which every experiment changes."""
    text = (conf / f"{command}.yaml").read_text(encoding="utf-8")
    return command == "train" or text.startswith("defaults:\n  - train\n")


def explained(conf: Path, command: str, overrides: Sequence[str], error: Exception) -> str:
    """One line: which override is wrong, and what to write instead."""
    parsed: list[tuple[str, Override]] = []
    for override in overrides:
        one = _parsed(override)
        if isinstance(one, str):
            return one
        parsed.append((override, one))
    base = _base(conf, command)
    groups = [(o, p) for o, p in parsed if (conf / p.key_or_group).is_dir()]
    for override, one in groups:
        if line := _wrong_choice(conf, command, override, one, base):
            return line
    known, kept = base, list[str]()
    # groups of the command's own defaults first: they may add the group that another override chooses
    for override, one in sorted(groups, key=lambda pair: pair[1].get_key_element() not in base.choices):
        try:
            known = Known.of(conf, command, [*kept, override])
        except REFUSALS as refused:
            return _refused_group(conf, command, override, one, known, refused)
        kept.append(override)
    for override, one in parsed:
        if (override, one) not in groups and (line := _wrong_key(conf, command, override, one, known)):
            return line
    return f"config: {' '.join(str(error).split())}"


def unresolved(error: OmegaConfBaseException) -> str:
    """The error line for an interpolation without a target, or for a missing value."""
    first = str(error).strip().splitlines()[0]
    at = re.search(r"full_key: (\S+)", str(error))
    where = f"{at[1]}: " if at else ""
    return f"config: {where}{first}; ${{...}} names another key or ${{oc.env:NAME}}; fix it, or set what it names"


def full_key(error: Exception) -> str:
    """The dotted path of the part that was not built; "" where the error names none."""
    at = re.search(r"full_key: (\S+)", str(error))
    return at[1] if at else ""


def not_built(config: DictConfig, error: Exception) -> str:
    """The error line for a part whose constructor refuses a setting or its value."""
    where, cause = full_key(error), error.__cause__
    part = OmegaConf.select(config, where) if where else None
    target = repr(part.get("_target_")).strip("'").rpartition(".")[2] if isinstance(part, DictConfig) else "a part"
    if cause is None:
        return f"config: {where or 'a part'}: {' '.join(str(error).split())}"
    if "Error loading" in str(cause) or "Error locating" in str(cause):
        return f"config: {where}: {' '.join(str(cause).split())}; fix its _target_"
    if named := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
        target = str(cause).partition(".__init__()")[0].rpartition(" ")[2] or target
        return f"config: {where}: {target} takes no {named[1]!r}; remove it; --help lists the settings"
    if "required" in str(cause) and "argument" in str(cause):
        lacking = re.findall(r"'(\w+)'", str(cause))
        return f"config: {where}: {target} lacks {', '.join(lacking)}; give it"
    why = " ".join(str(cause).split())
    given = _suspects(part, where, str(cause)) if isinstance(part, DictConfig) else "its settings"
    return f"config: {given}: {target} cannot be built from it ({why}); give a value of the right type"


def is_raised_on_purpose(error: BaseException) -> bool:
    """Whether a `raise` statement raised it, and not a C function such as int("word")."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_code.co_code[at.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _suspects(part: DictConfig, where: str, cause: str) -> str:
    """Keys of the settings quoted in `cause`; else of the text settings; else of all."""
    plain = {str(k): v for k, v in part.items() if not str(k).startswith("_") and not isinstance(v, DictConfig)}
    words = {k: v for k, v in plain.items() if isinstance(v, str)}
    quoted = {k: v for k, v in words.items() if repr(v) in cause}
    named, unresolved_values = [], cast(dict[str, Any], OmegaConf.to_container(part, resolve=False))
    for key, value in (quoted or ("'str'" in cause and words) or plain).items():
        raw = unresolved_values[key]
        points = re.fullmatch(r"\$\{([\w.]+)\}", str(raw))
        named.append(f"{points[1] if points else f'{where}.{key}'}={value!r}")
    return ", ".join(one for one in named if len(one) < 60)


def _parsed(override: str) -> Override | str:
    """The parsed override, or the error line for its form."""
    key, equals, value = override.partition("=")
    if override.startswith("-"):
        return f"config: {override!r} is no override; the only switch is --help; {FORMS}"
    if not key.lstrip("+~"):
        return f"config: {override!r} names no key; {FORMS}"
    if not equals and not key.startswith("~"):
        return f"config: {override!r} gives no value; write {override}=...; {FORMS}"
    try:
        one = OverridesParser.create().parse_overrides([override])[0]
    except HydraException:
        return f"config: {override!r} cannot be read; {FORMS}"
    if one.is_sweep_override():
        return (
            f"config: {override!r} gives several values; one run takes one; give one, or quote it where the comma "
            f"belongs to it: {key}=\"'{value}'\""
        )
    return one


def _wrong_choice(conf: Path, command: str, override: str, one: Override, base: Known) -> str | None:
    """The error line for a choice of a group, by the files of conf/ alone; None if valid."""
    group, value = one.key_or_group, one.value()
    known = studies(conf, command) if group == "study" and command in ("audit", "compare") else choices_of(conf, group)
    if one.is_force_add() or (one.is_add() and one.package is None and group in base.choices):
        return f"config: {group} has a choice already; write {override.lstrip('+')}, without +"
    for name in value if isinstance(value, list) else [value]:
        if name is None and (group in base.choices or isinstance(value, list)):
            return f"config: {override!r} names no choice; {group} is one of {', '.join(known)}"
        if name is not None and str(name) not in known:
            guess, names = nearest(str(name), known), ", ".join(known) or "none"
            return f"config: {group}={name} does not exist; {guess}; known: {names}"
    return None


def _refused_group(conf: Path, command: str, override: str, one: Override, known: Known, error: Exception) -> str:
    """Why an existing choice cannot be combined with the others."""
    group = one.key_or_group
    if one.is_add() and group in known.choices:
        return f"config: {group} is given twice, {known.choices[group]} and {one.value()}; it takes one; drop the other"
    if one.is_add():
        return f"config: {override!r}: {' '.join(str(error).split())}"
    return _absent_group(conf, command, override, group, known)


def _absent_group(conf: Path, command: str, override: str, group: str, known: Known) -> str:
    """The error line for a group that this config lacks, with where it can be chosen."""
    value = override.partition("=")[2]
    if here := [address for address in known.choices if address.startswith(f"{group}@")]:
        forms = " or ".join(f"{address}={value}" for address in here)
        return f"config: {group} cannot be chosen by itself here; it is part of another group; write {forms}"
    users = re.compile(rf"^\s*- (?:override )?/?{re.escape(group)}@([\w.]+):", re.MULTILINE)
    for path in sorted(conf.glob("*/*.yaml")):
        outer = path.parent.name
        if outer in known.choices and (found := users.search(path.read_text(encoding="utf-8"))):
            address = f"{group}@{outer}.{found[1]}={value}"
            return (
                f"config: {outer}={known.choices[outer]} has no {group}; {outer}={path.stem} has, chosen as "
                f"{address}; choose both, or leave {override!r} out"
            )
    listed = re.compile(rf"^\s*- {re.escape(group)}:", re.MULTILINE)
    commands = [p.stem for p in sorted(conf.glob("*.yaml")) if listed.search(p.read_text(encoding="utf-8"))]
    if group == "study":
        commands = ["audit", "compare"]
    if group == "experiment":
        commands = ["train", "tune", "compare", "audit", "doctor"]
    takes = f"it is chosen with {', '.join(commands)}" if commands else "no command chooses it by itself"
    return f"config: {command} has no group {group!r}; {takes}; leave {override!r} out; see --help"


def _wrong_key(conf: Path, command: str, override: str, one: Override, known: Known) -> str | None:
    """The error line for a key that cannot be set; None where it can."""
    path = one.key_or_group
    found = known.at(path) is not ...
    if one.is_add() and not one.is_force_add() and found:
        return f"config: {path!r} is there already; write {override.lstrip('+')}, without +"
    if found and isinstance(known.at(path), Mapping) and not one.is_delete() and isinstance(one.value(), Mapping):
        return (
            f"config: {override!r}: {path} is a mapping, whose keys are set one by one: {path}.KEY=... changes one, "
            f"+{path}.KEY=... adds one, ~{path}.KEY drops one; it has {', '.join(map(str, known.at(path)))}"
        )
    if found or one.is_add():
        return None
    return _unknown_key(conf, command, override, path, known)


def _unknown_key(conf: Path, command: str, override: str, path: str, known: Known) -> str:
    """The error line for an unknown key, with the nearest existing key."""
    parts = path.split(".")
    depth = max(d for d in range(len(parts)) if known.at(".".join(parts[:d])) is not ...)
    parent, inside = ".".join(parts[:depth]), known.at(".".join(parts[:depth]))
    start = f"config: unknown key {path!r} in {override!r}"
    if isinstance(inside, str) and inside.startswith("${"):
        rest = ".".join([inside.strip("${}"), *parts[depth:]])
        return f"{start}; {parent} takes its value from {inside.strip('${}')}; write {rest}=..."
    if not parent:
        owners = [p.stem for p in sorted(conf.glob("*.yaml")) if value_at(OmegaConf.load(p), path) is not ...]
        if owners:
            return f"{start}; {command} has none; it is a key of {', '.join(owners)}; see --help"
        paths = _paths(known.keys)
        for top in difflib.get_close_matches(parts[0], [p for p in paths if "." not in p]):
            if known.at(straight := ".".join([top, *parts[1:]])) is not ...:
                return f"{start}; did you mean {straight!r}?; see --help"
        return f"{start}; {nearest(path, [*paths, *known.choices])}; see --help"
    if isinstance(inside, list):
        return f"{start}; {parent} is a list of {len(inside)}; give the complete list, {parent}=[...]"
    children = [str(key) for key in inside if not str(key).startswith("_")] if isinstance(inside, Mapping) else []
    deeper = [p for c in children if known.at(p := ".".join([parent, c, *parts[depth:]])) is not ...]
    near = [".".join([parent, c]) for c in difflib.get_close_matches(parts[depth], children, n=1, cutoff=0.5)]
    guess = f"did you mean {[*deeper, *near][0]!r}?; " if deeper or near else ""
    of = f"{parent}={known.choices[parent]}" if known.choices.get(parent) else parent
    more = ", ..." if len(children) > MOST_NAMED else ""
    has = f"{of} has {', '.join(children[:MOST_NAMED])}{more}" if children else f"{of} has no keys of its own"
    return f"{start}; {guess}{has}; see --help"


def _paths(keys: Mapping[str, Any]) -> list[str]:
    every = [path for path, _ in leaves(keys)]
    return sorted({".".join(path.split(".")[:i]) for path in every for i in range(1, path.count(".") + 2)})


def value_at(value: Any, path: str) -> Any:
    """The value at a dotted path, Ellipsis where there is none."""
    for part in path.split(".") if path else ():
        if isinstance(value, Mapping):
            value = value.get(part, value.get(int(part), ...) if part.isdigit() else ...)
        elif isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            return ...
        if value is ...:
            return ...
    return value


def plain_config(config: DictConfig) -> tuple[Config, list[str]]:
    """The config as plain, resolved values, and the keys that have no value.

    Raises ConfigError where an interpolation has no target.
    """
    try:
        plain: Any = resolved(config)
        # listing them costs as much as resolving all values, and hardly any config lacks a value
        missing = sorted(OmegaConf.missing_keys(config)) if _lacks_a_value(plain) else []
    except OmegaConfBaseException as error:
        raise ConfigError(unresolved(error)) from error
    return plain, missing


def _lacks_a_value(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_lacks_a_value, value.values() if isinstance(value, dict) else value))
    return value == "???"
