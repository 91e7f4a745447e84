"""Reads files from outside: inside their folder, with limits of size and depth, errors in one line.

Every loader of bundles, runs, studies and checkpoints reads through this module. A received file is data; nothing in
it is imported, resolved or run.
"""

import csv
import io
import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tradsys.core.errors import BundleError, TradsysError, refused_by_disk

MAX_JSON_BYTES = 256 * 2**20  # an ensemble of large boosters stays far below
MOST_NAME_BYTES = 255  # of a file, on every usual file system
MAX_DEPTH = 64  # of nested lists and mappings; files of tradsys need about ten
FOLDER_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
CONTROL = dict.fromkeys((*range(0x20), 0x7F, *range(0x80, 0xA0)))  # C0, DEL and C1: control characters of a terminal
KEPT_CONTROL = (0x09, 0x0A)
# invisible characters and marks of writing direction (Unicode UAX 9)
INVISIBLE = (
    0x61C,
    0x200B,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2065),
    *range(0x2066, 0x206A),
    0xFEFF,
)
_UNSHOWN = {code: None for code in (*CONTROL, *INVISIBLE) if code not in KEPT_CONTROL}


@contextmanager
def refused_in_one_line(where: str, fix: str, error: type[TradsysError] = BundleError) -> Iterator[None]:
    """Turns any library exception in the block into one `error`.

    A TradsysError or disk error passes. where: the file. fix: the next step. Interrupts and exits pass; a Rust panic,
    which is no subclass of Exception, is turned into `error` too.
    """
    try:
        yield
    except TradsysError:
        raise
    except OSError as cause:
        if cause.errno is not None:  # a full disk or a missing permission is no damage of the file
            raise
        raise error(f"{where}: it cannot be read ({one_line(cause)}); {fix}") from cause
    except BaseException as cause:
        if not isinstance(cause, Exception) and type(cause).__name__ != "PanicException":
            raise
        if (refused := refused_by_disk(cause, where)) is not None:
            raise refused from cause
        raise error(f"{where}: it cannot be read ({one_line(cause)}); it is damaged or foreign; {fix}") from cause


def one_line(cause: object, most: int = 160) -> str:
    """An error's type and message in one line of at most `most` characters.

    Control characters are removed.
    """
    text = " ".join(plain_text(str(cause)).split())
    named = f"{type(cause).__name__}: {text}" if isinstance(cause, BaseException) else text
    return named if len(named) <= most else f"{named[: most - 3]}..."


def plain_text(text: str) -> str:
    """Received text without control, invisible and direction-changing characters."""
    return text if text.isprintable() else text.translate(_UNSHOWN)


def is_one_line(text: str) -> bool:
    """Whether a name has no line break, tab or byte outside the encoding.

    The encoding is the file system's.
    """
    return not re.search("[\t\n\r\ud800-\udfff]", text)


def plain_texts(value: Any) -> Any:
    """A JSON value whose every text, keys included, has lost its control characters."""
    if isinstance(value, dict):
        return {plain_text(key): plain_texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain_texts(inner) for inner in value]
    return plain_text(value) if isinstance(value, str) else value


def inside(folder: Path, name: Any, error: type[TradsysError] = BundleError) -> Path:
    """The regular file `name` of a folder.

    Refuses absolute names, `..`, sub-folders and links that lead out.
    """
    relative = PurePosixPath(name) if isinstance(name, str) else None
    plain = relative is not None and relative.name == name and name not in ("", ".", "..") and "\\" not in name
    if not plain or "\0" in str(name) or len(str(name).encode(errors="replace")) > MOST_NAME_BYTES:
        raise error(
            f"{folder}: it names the file {one_line(name)!r}; a file lies directly in its folder; export it again"
        )
    path = folder / str(name)
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise error(f"{path}: it is a link that leads out of {folder}; files are read inside their folder; copy it in")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise error(f"{path}: it is no regular file; files are read inside their folder; export it again")
    return path


def check_folder_name(where: str, name: object, error: type[TradsysError]) -> None:
    """Raises `error` unless the name is safe for a folder inside its parent."""
    if not FOLDER_NAME.fullmatch(str(name)):
        raise error(
            f"{where}={one_line(name)!r}; a folder's name has at most 100 letters, digits, . - and _, "
            "and does not begin with . or -; give another"
        )


def read_text(path: Path, fix: str, error: type[TradsysError] = BundleError, most: int = MAX_JSON_BYTES) -> str:
    """The text of a UTF-8 file of at most `most` bytes."""
    about = path.stat()
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):  # a pipe is waited for, without end
        raise error(f"{path}: it is no regular file; {fix}")
    size = about.st_size
    if size > most:
        raise error(f"{path}: {size:,} bytes; at most {most:,} are read; {fix}")
    with refused_in_one_line(str(path), fix, error):
        return path.read_bytes().decode("utf-8")


def read_csv(path: Path, fix: str, error: type[TradsysError] = BundleError, most: int = 2**24) -> list[list[str]]:
    """The rows of a small CSV list, header first, without empty lines.

    Cells are stripped.
    """
    text = read_text(path, fix, error, most)
    with refused_in_one_line(str(path), fix, error):
        lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        rows = [[cell.strip() for cell in row] for row in lines]
    if plain_text(text) != text.replace("\r", "").replace("\ufeff", ""):
        raise error(f"{path}: it holds control characters, or ones that hide or turn text; {fix}")
    return [row for row in rows if row]


def read_json(path: Path, fix: str, error: type[TradsysError] = BundleError, kind: type = dict) -> Any:
    """A JSON file as the expected kind of value.

    Refuses NaN, deep nesting, double keys and other kinds.
    """
    return parse_json(read_text(path, fix, error), str(path), fix, error, kind)


def parse_json(text: str, where: str, fix: str, error: type[TradsysError] = BundleError, kind: type = dict) -> Any:
    """`read_json` for a text in memory."""
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as cause:
        raise error(f"{where}: it is not JSON as tradsys writes it ({one_line(cause)}); {fix}") from cause
    if not isinstance(value, kind):
        raise error(f"{where}: it holds a {type(value).__name__}, not a {kind.__name__}; {fix}")
    check_depth(value, where, fix, error)
    return value


def parse_yaml(text: str, where: str, fix: str, error: type[TradsysError] = BundleError) -> Any:
    """Plain values of YAML; tags, aliases and deep nesting are refused."""
    try:
        value = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise error(f"{where}: it is no plain YAML ({one_line(cause)}); {fix}") from cause
    check_depth(value, where, fix, error)
    return value


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses aliases, by which a small file becomes a large value."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def check_depth(value: Any, where: str, fix: str, error: type[TradsysError] = BundleError) -> None:
    """Raises where lists and mappings are nested deeper than anything tradsys writes."""
    level, depth = [value], 0
    while level := [inner for each in level for inner in _children(each)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise error(f"{where}: it is nested more than {MAX_DEPTH} levels deep; {fix}")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    return [inner for inner in value if isinstance(inner, dict | list)] if isinstance(value, list) else []


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one mapping")
    return found


def override_key(override: str) -> str:
    """The key of an override `key=value`, `+key=value` or `~key`."""
    return override.lstrip("+~").partition("=")[0]
