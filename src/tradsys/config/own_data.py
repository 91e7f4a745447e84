"""A user's own data at every command: symbols as text, short keys of the data group, folders of own configurations."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

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
    """Lets Hydra search `--config-dir` folders and the project's conf/ first; the overrides without those flags.

    Raises ValueError where such a folder does not exist.
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
        OwnFolders.given = tuple(folders)  # a command composes more than once, and passes the flag on the first time
    project = Path("conf").resolve()
    own = [project] if project.is_dir() and project != package.resolve() else []
    OwnFolders.folders = tuple(dict.fromkeys((*OwnFolders.given, *own)))
    if OwnFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(OwnFolders)
    return rest


def of_the_store(overrides: Sequence[str], choices: Sequence[str]) -> list[str]:
    """`data=NAME` of a dataset in the store, where no configuration has that name, as `data=stored` with its keys.

    `data=stored data.source.name=NAME` is the same, spelled out.
    choices: the names of the data group. The longest pause of one history, the calendar and, of an exchange's bars, the
    costs of stocks follow from the dataset's manifest, unless they are given.
    """
    given = {key: value for key, sign, value in (one.partition("=") for one in overrides) if sign}
    name = given.get("data", "")
    spelled_out = name == "stored"
    if spelled_out:
        name = given.get("data.source.name", "").strip("'\"")
    manifest = Path(given.get("paths.data", "data")) / name / "manifest.json"
    if (name in choices and not spelled_out) or not _WORD.fullmatch(name) or not manifest.is_file():
        return list(overrides)
    try:
        stored = read_json(manifest, "fetch the dataset again")
        minutes, imports = float(stored["bar_minutes"]), stored["imports"]
        stated = [one["calendar"] for one in imports if one.get("calendar")]  # events and later files may name none
        calendar = stated[-1] if stated else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # reading the bars says what
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
    """Whether this is the name of an exchange's calendar, such as XNYS, and not None, 24/7 or 24/5."""
    return isinstance(calendar, str) and "/" not in calendar and calendar != ""


def spelled(overrides: Sequence[str], conf: Path, *, has_data: bool) -> list[str]:
    """Overrides with symbols in quotes; `symbols=`, `market_symbol=` become keys of the data group if there is one."""
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
    """The key that holds the stored source of a data choice: one level deeper where known series are joined."""
    seen: set[str] = set()
    while data and data not in seen:
        seen.add(data)
        path = next(
            (
                f / "data" / f"{data}.yaml"
                for f in (*OwnFolders.folders, conf)
                if (f / "data" / f"{data}.yaml").is_file()
            ),
            None,
        )
        if path is None:
            break
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if isinstance(found, dict) and "source" in (found.get("source") or {}):
            return "data.source.source"
        parents = [
            d
            for d in (found.get("defaults", []) if isinstance(found, dict) else [])
            if isinstance(d, str) and d != "_self_"
        ]
        data = parents[0] if parents else ""
    return "data.source"
