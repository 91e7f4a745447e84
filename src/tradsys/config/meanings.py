"""The one-line meaning of every configuration key, from comments in conf/ and keys.yaml, and the lines of --help."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

WIDTH, KEY_WIDTH = 80, 34  # columns of --help, and of the keys in it
EXAMPLE = re.compile(r"(python -m .*?\S)(?: {2,}(?!\S*=)(\S.*))?")  # a command and its keys; what it does
KEYS = Path(__file__).with_name("keys.yaml")
# folders whose files only set keys of other groups
BORROWED = {"experiment", "sweep", "study"}
# names that a user chooses: members of a model, books, columns of a file, profiles
NAMED_BY_USER = ("members", "weights", "books", "columns", "known", "rules", "strategy")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same nodes and marks, ten times as fast
PLUMBING = {"_target_", "_partial_", "_convert_", "_recursive_", "defaults", "hydra"}


@dataclass(frozen=True)
class Meanings:
    """What each key means: lines by (class, key), dotted path, and bare key.

    A dotted path is `group.key` or `command.key`. `by_owner` and `by_path` come from comments at the keys of conf/,
    `general` from keys.yaml.
    """

    by_owner: Mapping[tuple[str, str], str]
    by_path: Mapping[str, str]
    general: Mapping[str, str]

    def of(self, command: str, config: Mapping[str, Any], key: str) -> str:
        """The line of a dotted `key` in a composed config; "" where there is none."""
        part: Any = config
        for name in key.split(".")[:-1]:
            part = part.get(name, {}) if isinstance(part, Mapping) else {}
        owner = str(part.get("_target_", "")).rpartition(".")[2] if isinstance(part, Mapping) else ""
        return self.at(owner, f"{command}.{key}", f"train.{key}", key)  # most commands compose what train composes

    def at(self, owner: str, *places: str) -> str:
        """The line of a key at the first of its `places` that has one, else "".

        A place is `group.key` or `command.key`. owner: the class that the key is an argument of, "" for none.
        """
        last = places[-1].rpartition(".")[2]
        found = self.general.get(f"{owner}.{last}") or self.by_owner.get((owner, last))
        for place in places:
            found = found or self.general.get(place) or self.by_path.get(place)
        return found or ("" if is_users_name(places[-1]) else self.general.get(last, ""))


def is_users_name(path: str) -> bool:
    """Whether the last part of a key is a name the user chose, as a member's."""
    return any(part in NAMED_BY_USER for part in path.split(".")[-2:-1])


def read_meanings(conf: Path) -> Meanings:
    """The meanings of all keys under a conf/ folder, read once per folder."""
    return _read_meanings(conf)


@lru_cache(maxsize=4)
def _read_meanings(conf: Path) -> Meanings:
    by_owner: dict[tuple[str, str], str] = {}
    by_path: dict[str, str] = {}
    for file, owner, key, line in keys_of(conf):
        if not line:
            continue
        if owner:
            by_owner.setdefault((owner, key.rpartition(".")[2]), line)
        by_path.setdefault(f"{place_of(conf, file)}.{key}", line)
    general = yaml.load(KEYS.read_text(encoding="utf-8"), _LOADER)
    return Meanings(by_owner, by_path, general)


def place_of(conf: Path, file: Path) -> str:
    """The prefix of a file's keys: its group, or its command at the top of conf/."""
    group = file.parent.relative_to(conf)
    return ".".join(group.parts) or file.stem


def keys_of(conf: Path) -> Iterator[tuple[Path, str, str, str]]:
    """(file, class or "", dotted key, comment or "") of every key in conf/.

    Experiments and studies are left out.
    """
    for file in sorted(conf.rglob("*.yaml")):
        if file.relative_to(conf).parts[0] in BORROWED:
            continue
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_LOADER)
        if isinstance(node, yaml.MappingNode):
            lines = text.splitlines()
            for owner, key, line in _walk_yaml(node, lines, ""):
                yield file, owner, key, line


def _walk_yaml(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    pairs = {key.value: (key, value) for key, value in node.value}
    owner = pairs["_target_"][1].value.rpartition(".")[2] if "_target_" in pairs else ""
    for name, (key, value) in pairs.items():
        if name in PLUMBING or "@" in name or "/" in name:
            continue
        path = f"{prefix}{name}"
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        yield owner, path, _comment(lines, key.end_mark if block else value.end_mark)
        if isinstance(value, yaml.MappingNode) and block:
            yield from _walk_yaml(value, lines, f"{path}.")


def _comment(lines: list[str], mark: yaml.Mark) -> str:
    """The text after `#` on the line of a mark."""
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    return rest.partition("#")[2].strip()


def purpose_lines(doc: str) -> Iterator[str]:
    """A command's docstring within WIDTH columns.

    Examples stand over what they do where the two are too long for a line, and are continued by a backslash, as a shell
    takes them; other lines are filled. One empty line separates the parts.
    """
    lines = (line.strip() for line in doc.strip().splitlines())
    blocks = [(kind, list(part)) for kind, part in groupby(lines, _kind_of) if kind]
    for k, (kind, part) in enumerate(blocks):
        if k:
            yield ""
        if kind == "example":
            yield from _example_lines(part)
        else:
            yield from textwrap.wrap(" ".join(part), WIDTH, break_on_hyphens=False)


def _kind_of(line: str) -> str:
    return "" if not line else "example" if line.startswith("python -m ") else "text"


def _example_lines(lines: Sequence[str]) -> Iterator[str]:
    pairs = [match.groups() for line in lines if (match := EXAMPLE.fullmatch(line))]
    widest = max(len(command) for command, _ in pairs)
    fits = all(len(says or "") <= WIDTH - widest - 4 for _, says in pairs)
    for command, says in pairs:
        if fits:
            yield f"  {command:<{widest}}  {says or ''}".rstrip()
        else:
            words = textwrap.wrap(command, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
            yield "  " + " \\\n      ".join(words)
            yield from textwrap.wrap(says or "", WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def group_lines(choices: Mapping[str, Sequence[str]]) -> list[str]:
    """Each group of configuration with its choices, within WIDTH columns."""
    widest = max(map(len, choices), default=0)
    indent = " " * (widest + 4)
    lines = (f"  {group:<{widest}}  {' | '.join(names)}" for group, names in choices.items())
    return [textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) for line in lines]


def key_lines(shown: str, meaning: str) -> list[str]:
    """A key and what it means, within WIDTH columns."""
    if len(shown) < KEY_WIDTH - 3 and len(meaning) <= WIDTH - KEY_WIDTH:
        return [f"  {shown:<{KEY_WIDTH - 2}}{meaning}".rstrip()]
    return [f"  {shown}", *textwrap.wrap(meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]
