"""Overrides for a user's own data: symbols as text, short data keys, own conf/ folders."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from tradsys.core.plain_data import Config
from tradsys.core.received import read_json

TEXT_KEYS = ("symbol", "symbols", "market_symbol", "name")  # YAML would take NAN, TRUE or 1E5 for something else
DAY_MINUTES = 1440
_WORD = re.compile(r"[\w.^=:&+$#/@-]+")


class OwnFolders(SearchPathPlugin):
    """Puts a user's conf folders before the package's own."""

    folders: ClassVar[tuple[Path, ...]] = ()
    given: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra each time a configuration is composed."""
        for folder in reversed(self.folders):
            search_path.prepend("own", f"file://{folder}")


def search(overrides: Sequence[str], package: Path) -> list[str]:
    """The overrides without `--config-dir`.

    Hydra searches those folders and the project's conf/ first. Raises ValueError where such a folder does not exist.
    """
    rest, folders = [], []
    given = iter(overrides)
    for one in given:
        if one == "--config-dir" or one.startswith("--config-dir="):
            folder = Path(one.partition("=")[2] or next(given, ""))
            if not folder.is_dir():
                raise ValueError(
                    f"config: --config-dir={folder} is no folder; give the folder that holds data/, experiment/ ..."
                )
            folders.append(folder.resolve())
        else:
            rest.append(one)
    if folders:
        OwnFolders.given = tuple(folders)  # a command composes more than once and passes the flag only the first time
    project = Path("conf").resolve()
    own = [project] if project.is_dir() and project != package.resolve() else []
    OwnFolders.folders = tuple(dict.fromkeys((*OwnFolders.given, *own)))
    if OwnFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(OwnFolders)
    return rest


def of_the_store(overrides: Sequence[str], choices: Sequence[str], conf: Path) -> list[str]:
    """The overrides with `data=NAME` of a stored dataset as `data=stored`.

    This holds where no configuration has that name. `data=stored data.source.name=NAME` and an own file that begins
    with `stored` are treated alike. Unless given, the longest gap inside a segment, the calendar and, for an exchange's
    bars, the costs of stocks come from the dataset's manifest. choices: names of the data group. conf: the package's
    folder.
    """
    given = {key: value for key, sign, value in (one.partition("=") for one in overrides) if sign}
    name = given.get("data", "")
    own = _begun_with_stored(conf, name)
    given = own | given
    spelled_out = name == "stored" or bool(own)
    if spelled_out:
        name = given.get("data.source.name", "").strip("'\"")
    manifest = Path(given.get("paths.data", "data")) / name / "manifest.json"
    configured = name in choices or any(_data_files(conf, name))
    if (configured and not spelled_out) or not _WORD.fullmatch(name) or not manifest.is_file():
        return list(overrides)
    try:
        stored = read_json(manifest, "fetch the dataset again")
        minutes, imports = float(stored["bar_minutes"]), stored["imports"]
        stated = [one["calendar"] for one in imports if one.get("calendar")]  # events and later files may name none
        calendar = stated[-1] if stated else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # reading the bars reports it
        minutes, calendar = 60.0, None
    derived = {"data.max_gap_minutes": f"{10080 if minutes >= DAY_MINUTES else max(360.0, 6 * minutes):g}"}
    if isinstance(calendar, str) and _WORD.fullmatch(calendar):
        derived["data.calendar"] = f"'{calendar}'"
    if is_exchange(calendar) and "costs" not in given:
        derived["costs"] = "stocks"
    keys = [f"{key}={value}" for key, value in derived.items() if key not in given]
    if spelled_out:
        return [*overrides, *keys]
    keys = [f"data.source.name='{name}'", *keys]
    return [new for one in overrides for new in (["data=stored", *keys] if one == f"data={name}" else [one])]


def is_exchange(calendar: object) -> bool:
    """Whether this names an exchange's calendar, such as XNYS.

    False for None, 24/7 and 24/5.
    """
    return isinstance(calendar, str) and "/" not in calendar and calendar != ""


def spelled(overrides: Sequence[str], conf: Path, *, has_data: bool) -> list[str]:
    """The overrides with quoted symbols.

    `symbols=` and `market_symbol=` become data keys. has_data: whether the command has a data group.
    """
    data = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), "")
    return [_spelled(one, conf, data, has_data=has_data) for one in overrides]


def _spelled(override: str, conf: Path, data: str, *, has_data: bool) -> str:
    key, sign, value = override.partition("=")
    if has_data and key == "data.as_of" and value:  # a key that every choice of the group takes
        text = value.strip("'\"")
        return f"++data.as_of={text if text == 'null' else repr(text)}"
    if not sign or key.split(".")[-1] not in TEXT_KEYS:
        return override
    if has_data and key == "market_symbol":
        key = "data.market_symbol"
    elif has_data and key == "symbols":
        key = f"{_stored_key(conf, data)}.symbols"
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    if value in ("null", "none", "", "???"):
        return "null" if value == "none" else value
    if value.startswith("[") and value.endswith("]"):
        return "[" + ",".join(_quoted(part.strip()) for part in value[1:-1].split(",") if part.strip()) + "]"
    return f"'{value}'" if _WORD.fullmatch(value) else value


def _stored_key(conf: Path, data: str) -> str:
    """The key of a data choice's stored source: one level deeper where series are joined."""
    joined = any("source" in (found.get("source") or {}) for _, found in _data_files(conf, data))
    return "data.source.source" if joined else "data.source"


def _data_files(conf: Path, data: str) -> Iterator[tuple[str, Config]]:
    """Name and content of a data choice's file, then of the files in its defaults."""
    seen: set[str] = set()
    while data and data not in seen:
        seen.add(data)
        places = (folder / "data" / f"{data}.yaml" for folder in (*OwnFolders.folders, conf))
        if (path := next((place for place in places if place.is_file()), None)) is None:
            return
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if not isinstance(found, dict):
            return
        yield data, found  # type: ignore[misc]
        parents = [one for one in found.get("defaults") or [] if isinstance(one, str) and one != "_self_"]
        data = parents[0] if parents else ""


def _begun_with_stored(conf: Path, data: str) -> dict[str, str]:
    """The settings of an own data file that begins with `stored`, as overrides; {} for any other.

    Holds the dataset's name, and which of longest gap, calendar and costs the file sets itself.
    """
    files = list(_data_files(conf, data))
    if len(files) < 2 or files[-1][0] != "stored":
        return {}
    given: dict[str, str] = {}
    for _, found in reversed(files[:-1]):
        given |= {f"data.{key}": str(found[key]) for key in ("max_gap_minutes", "calendar") if key in found}
        source = found.get("source")
        if isinstance(source, dict) and isinstance(source.get("name"), str):
            given["data.source.name"] = source["name"]
        if any("costs" in str(key) for one in found.get("defaults") or [] if isinstance(one, dict) for key in one):
            given["costs"] = "its own"
    return given
