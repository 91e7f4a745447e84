"""Writes a user's package from the template beside this module."""

import keyword
import re
import tempfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from string import Template

from tradsys import __version__
from tradsys.core.errors import TradsysError

TEMPLATE = Path(__file__).with_name("template")
NAME = r"[a-z][a-z0-9_]{0,49}"
SUFFIX = ".txt"  # so that no tool treats the template as code of tradsys


def write_package(name: str, into: Path) -> list[Path]:
    """The files of a new package `into/name`, all of them or none.

    Raises TradsysError where the name is no module name or taken, or where the folder exists.
    """
    folder = into / name
    if re.fullmatch(NAME, name) and folder.exists():
        raise TradsysError(
            f"new: {folder} exists; existing folders are not overwritten; choose another name or into=FOLDER"
        )
    if not into.is_dir():
        raise TradsysError(f"new: into={into} is no folder; create it or give another")
    _check_name(name)
    with tempfile.TemporaryDirectory(dir=into, prefix=".new-") as draft:
        made = Path(draft) / name
        for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
            path = made / _place(source.relative_to(TEMPLATE), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template(source.read_text(encoding="utf-8")).substitute(name=name, version=__version__)
            path.write_text(text, encoding="utf-8")
        made.rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name) or keyword.iskeyword(name):
        raise TradsysError(
            f"new: name={name!r}; a package's name has small letters, digits and _, a letter first; use for example "
            "my_alphas"
        )
    if name in packages_distributions() or find_spec(name) is not None:
        raise TradsysError(
            f"new: a package {name!r} is installed already; one would hide the other; choose another name"
        )


def _place(path: Path, name: str) -> Path:
    """Target path of a template's file: package/ is src/NAME/, name*.yaml is NAME*.yaml, no suffix."""
    parts = ["src", name, *path.parts[1:]] if path.parts[0] == "package" else list(path.parts)
    last = parts[-1].removesuffix(SUFFIX)
    return Path(*parts[:-1], re.sub(r"^name(?=[_.])", name, last))
