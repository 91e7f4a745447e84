"""Entry point of all commands: composes conf/, builds the objects and reports a user's mistake in one line."""

import errno
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tradsys.config import composition, kinds, own_data, own_parts
from tradsys.config import explain as wrong
from tradsys.config.as_of import spread_as_of
from tradsys.config.copies import objects_of, resolved, written
from tradsys.config.explain import ConfigError, choices_of, leaves
from tradsys.config.meanings import group_lines, key_lines, purpose_lines, read_meanings
from tradsys.core.endings.stops import Terminated, end_waits_on_interrupt, end_with_parent, exit_code, stoppable
from tradsys.core.errors import TradsysError
from tradsys.core.masking import (
    FromEnvironment,
    masked,
    masked_text,
    masked_traceback,
    remember_environment,
    remember_urls,
)
from tradsys.core.plain_data import Config
from tradsys.core.progress import stages as progress
from tradsys.core.received import plain_text
from tradsys.core.runs import PACKAGE
from tradsys.ops.machine.cgroups import read_container, settle_threads

# numpy, torch, numba and polars count threads once, when they are loaded; commands import this module first
settle_threads(os.environ, read_container())

ENVIRONMENT = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)")
LONG_WORD = re.compile(r"\S{400,}")  # of an error: cut, so that the line can be read


def conf_folder() -> Path:
    """The conf/ of the installed package, or of the checkout it runs from."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "conf"


def project_conf() -> Path:
    """The configuration folder of the user's project, searched after conf/.

    It need not exist.
    """
    return composition.project_conf(conf_folder())


def compose(command: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a command with overrides applied.

    ConfigError names a wrong override.
    """
    conf = conf_folder()
    try:
        overrides = own_data.search(overrides, conf)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    groups = (conf / f"{command}.yaml").read_text(encoding="utf-8")
    has_data = "- data:" in groups or "- train\n" in groups
    if has_data:
        overrides = own_data.of_the_store(overrides, choices_of(conf, "data"), conf)
    overrides = own_data.spelled(overrides, conf, has_data=has_data)
    plain = [wrong.plain_form(conf, command, o) for o in overrides]
    try:
        if line := wrong.silent_mistake(conf, command, plain):
            raise ConfigError(line)
        config = composition.composed(conf, command, plain)
        if line := kinds.hidden_text(config) or _wrong_key(conf, command, plain, config):
            raise ConfigError(line)
        return spread_as_of(_with_known_secrets(config))
    except ConfigError:
        raise
    except composition.REFUSALS as error:
        raise ConfigError(wrong.explained(conf, command, plain, error)) from error


def _wrong_key(conf: Path, command: str, overrides: Sequence[str], config: DictConfig) -> str | None:
    """The error line for a command-line value of the wrong type; None if there is none."""
    groups, keys = composition.groups_and_keys(conf, overrides)
    if not keys:
        return None
    defaults = composition.of_groups(conf, command, groups)
    return kinds.wrong_key(config, defaults, keys, command, partial(read_meanings, conf))


def _with_known_secrets(config: DictConfig) -> DictConfig:
    """The same config; registers its environment values and URL secrets for masking."""
    for _, value in leaves({"": written(config)}):
        for text in value if isinstance(value, list) else [value]:
            for name in ENVIRONMENT.findall(str(text)):
                remember_environment(name)
            remember_urls(str(text))
    return config


def recorded(config: DictConfig | Config) -> str:
    """The text of config.yaml: resolved, without secrets, `${oc.env:NAME}` unresolved."""
    plain = as_dict(config) if isinstance(config, DictConfig) else config
    return OmegaConf.to_yaml(OmegaConf.create(masked(plain)))


Kept = dict[str, tuple[str, Any]]


def build(config: DictConfig, kept: Kept | None = None) -> Config:
    """The config with each `_target_` built as its object.

    `{}` (a group's `none`) is None. kept: parts of the last call by name, with their settings; one with the same
    settings is used again, so that trials of a study build only what they change.
    """
    try:
        plain, raw = resolved(config), written(config)
        # before building: a net that is too large, or a part that lacks a method, would fail much later
        if line := kinds.beyond_sense(plain, raw) or own_parts.wrong_part(raw):
            raise ConfigError(line)
        line = kinds.wrong_value(plain, raw)
        parts = objects_of(config) if kept is None else _built_where_new(config, plain, kept)
        built = {key: None if part == {} else part for key, part in parts.items()}
    except OmegaConfBaseException as error:
        raise ConfigError(wrong.unresolved(error)) from error
    except InstantiationException as error:
        cause = error.__cause__
        # the constructor's own error is clearer where it is about the wrong value
        own_words = line is None or kinds.key_of(line) in str(cause)
        if isinstance(cause, ValueError) and wrong.is_raised_on_purpose(cause) and own_words:
            raise kinds.at_its_key(cause, wrong.full_key(error), raw) from None
        raise ConfigError(line or wrong.not_built(config, error)) from error
    if line:
        raise ConfigError(line)
    data = built.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), dict):
        raise ConfigError(
            f"config: data.source is {{{', '.join(data['source'])}}} without a _target_, so nothing reads bars; begin "
            "conf/data/NAME.yaml with `defaults: [stored]` and set data.source.name, or give data=NAME of the store"
        )
    return built


def _built_where_new(config: DictConfig, plain: Any, kept: Kept) -> dict[str, Any]:
    """The built parts of a config, those with settings as before from `kept`; but for the model, whose fits differ."""
    old = {key for key, part in plain.items() if key in kept and kept[key][0] == repr(part) and key != "model"}
    if not old or "${" in repr(plain):  # what still holds an interpolation needs the config around it
        parts = dict(objects_of(config))
    else:
        new = OmegaConf.create({key: part for key, part in plain.items() if key not in old})
        built = objects_of(new)
        parts = {key: kept[key][1] if key in old else built[key] for key in plain}
    kept.update({key: (repr(plain[key]), part) for key, part in parts.items()})
    return parts


def as_dict(config: DictConfig) -> Config:
    """The config as plain, resolved values.

    Raises ConfigError for a missing `???` or a bad seed.
    """
    plain, missing = wrong.plain_config(config)
    if missing:
        known = studies("compare") if missing[0] == "study" else choices_of(conf_folder(), missing[0])
        choices = f" (one of {', '.join(known)})" if known else ""
        raise ConfigError(f"config: {missing[0]!r} has no value; it has no default; give {missing[0]}=...{choices}")
    raw = written(config)
    plain = _with_references(plain, raw, _from_environment(plain, raw))
    seed = plain.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ConfigError(f"config: seed={seed!r}; a seed is a whole number from 0 to 2^31 - 1; give another")
    return plain


def _from_environment(plain: Any, raw: Any) -> dict[str, str]:
    """Resolved text -> its `${oc.env:NAME}`, of the settings that read the environment."""
    found = {k: v for k, v in leaves({"": raw}) if isinstance(v, str) and ENVIRONMENT.search(v)}
    values = dict(leaves({"": plain})) if found else {}
    return {values[k]: v for k, v in found.items() if isinstance(values.get(k), str) and values[k]}


def _with_references(value: Any, written: Any, known: Mapping[str, str]) -> Any:
    """The resolved value, whose texts from the environment keep their reference."""
    if isinstance(value, dict):
        inner = written if isinstance(written, dict) else {}
        return {k: _with_references(v, inner.get(k), known) for k, v in value.items()}
    if isinstance(value, list):
        each = written if isinstance(written, list) else [None] * len(value)
        return [_with_references(v, w, known) for v, w in zip(value, each, strict=True)]
    if not isinstance(value, str) or not known:
        return value
    if isinstance(written, str) and ENVIRONMENT.search(written):
        return FromEnvironment(value, written)
    if value in known and written != value:
        return FromEnvironment(value, known[value])
    points = isinstance(written, str) and "${" in written
    return FromEnvironment(value, str(written)) if points and any(text in value for text in known) else value


def run_command(name: str, main: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> None:
    """Runs a command; prints one line and exits with 2 on an error of the user."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(a in ("-h", "--help") for a in arguments):
        _print_help(name, main)
        return
    for argument in arguments:
        remember_urls(argument)
    came: list[int] = []
    try:
        arguments = _quietened(name, arguments)
        with stoppable() as came:
            import polars  # noqa: F401, PLC0415 - sets a handler of Ctrl-C; --help needs none

            end_waits_on_interrupt()
            end_with_parent()
            main(arguments)
        if came:  # a library swallowed the interrupt
            raise KeyboardInterrupt
        sys.stdout.flush()  # a second Ctrl-C while libraries are unloaded must not lose output
    except KeyboardInterrupt as error:
        _end_stopped(came, error)
    except (ValueError, OmegaConfBaseException, OSError, RuntimeError) as error:
        if came:
            _end_stopped(came, KeyboardInterrupt())
        line = _line_of(error)
        line = LONG_WORD.sub(lambda found: f"{found[0][:100]}...", re.sub(r"\s*\n\s*", " ", line.strip()))
        if not line or os.environ.get("TRADSYS_TRACEBACK"):
            sys.excepthook = _masked_hook
            raise
        _print_error(f"error: {plain_text(masked_text(line))}", style="red")
        sys.exit(2)
    except Exception:
        if came:  # an import of C code that is interrupted ends as an ImportError
            _end_stopped(came, KeyboardInterrupt())
        sys.excepthook = _masked_hook
        raise


def _end_stopped(came: list[int], error: KeyboardInterrupt) -> NoReturn:
    """Ends a command that a signal stopped.

    Code that raises the interrupt again as another exception does not change which signal came.
    """
    stopped = Terminated() if signal.SIGTERM in came else error
    _print_error("terminated" if isinstance(stopped, Terminated) else "interrupted")
    sys.exit(exit_code(stopped))


def _quietened(name: str, arguments: list[str]) -> list[str]:
    """The arguments without `quiet=`, which is applied here."""
    kept, quiet = progress.taken_from(arguments)
    if quiet is not None:
        os.environ[progress.QUIET] = "1" if quiet else "0"
    if progress.is_watched():
        _print_error(f"{name} ...")
    return kept


def _print_help(name: str, main: Callable[[list[str]], None]) -> None:
    """`help_text`, what the command does at once: composing the configuration takes a moment."""
    purpose = _purpose(main)
    try:
        sys.stdout.write(f"{purpose}\n")
        sys.stdout.flush()
        sys.stdout.write(help_text(name, main).removeprefix(purpose).lstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # such as `--help | head`; what Python has left to write goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(line: str, style: str | None = None) -> None:
    """A line on standard error, in colour on a terminal."""
    from rich.console import Console  # noqa: PLC0415 - a twelfth of what --help takes

    Console(stderr=True, soft_wrap=True).print(line, markup=False, highlight=False, style=style)


def _masked_hook(_kind: type[BaseException], error: BaseException, _trace: Any) -> None:
    """Prints an uncaught error without secrets."""
    sys.stderr.write(masked_traceback(error))


def _purpose(main: Callable[[list[str]], None]) -> str:
    """The docstring of the command's module, and an empty line."""
    lines = purpose_lines(sys.modules[main.__module__].__doc__ or "")
    return "\n".join([*lines, ""])


def help_text(name: str, main: Callable[[list[str]], None]) -> str:
    """The command's --help: what it does, its groups with choices, its keys."""
    config = compose(name, [])
    groups = {g: choices_of(conf_folder(), g) for g in sorted(p.name for p in conf_folder().iterdir() if p.is_dir())}
    groups_with_plus = (
        *(("experiment",) if "model" in config else ()),
        *(("study",) if name in ("audit", "compare") else ()),
    )
    used = {g: c for g, c in groups.items() if c and (g in config or g in groups_with_plus)}
    if "study" in used:
        used["study"] = studies(name)
    if "data_choice" in config:
        used["data"] = groups["data"]
    lines = [_purpose(main)]
    if used:
        lines += ["Groups (group=choice):", *group_lines(used), ""]
    lines += ["Keys (key=value):"]
    lines += key_lines("quiet=false", "true shows results and errors only; at every command")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    known = read_meanings(conf_folder())
    for key, value in leaves(plain):
        # otherwise its value is copied from another key
        if key.count(".") < 2 and not re.fullmatch(r"\$\{[\w.]+\}", str(value)):
            lines += key_lines(f"{key}={_short_value(value)}", known.of(name, plain, key))
    return "\n".join(lines)


def studies(command: str) -> list[str]:
    """The studies that a command takes."""
    return wrong.studies(conf_folder(), command)


def _short_value(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# errors of a disk, each with the next step; any other OSError is a bug and keeps its traceback
REFUSED_BY_DISK = {
    errno.ENOSPC: "the disk is full; delete old runs, grow the volume, or write elsewhere with paths.runs=FOLDER",
    errno.EDQUOT: "the quota is used up; delete old runs, or write elsewhere with paths.runs=FOLDER",
    errno.EFBIG: "the file would exceed this system's limit; see ulimit -f, or write to another disk",
    errno.EBUSY: "another process holds it; wait until that is done, or end it",
    errno.EIO: "the disk cannot read or write it; check the disk, restore the file, or write elsewhere",
    errno.EROFS: "it is mounted read-only; mount it writable, or write elsewhere with paths.runs=FOLDER",
    errno.EACCES: "permission is denied; chmod it, or write elsewhere with paths.runs=FOLDER",
    errno.EPERM: "permission is denied; chmod it, or write elsewhere with paths.runs=FOLDER",
    errno.EEXIST: "a file, or a link that leads nowhere, stands in the way; move it away, or give another path",
    errno.ELOOP: "a link leads back to itself; remove it, or give another path",
    errno.ENOTDIR: "a file stands where a folder is needed; move it away, or give another path",
    errno.EISDIR: "a folder stands where a file is needed; give the file",
    errno.ENAMETOOLONG: "the name is too long for this file system; give a shorter one",
}


def _line_of(error: Exception) -> str:
    """The line of an error that the user can fix; empty for a bug."""
    if isinstance(error, OSError):
        return _disk_line(error)
    if isinstance(error, RuntimeError):  # Path.resolve has no OSError for it before Python 3.13
        loop = re.match("Symlink loop from '(.*)'", str(error))
        return f"disk: {loop[1]}: {REFUSED_BY_DISK[errno.ELOOP]}" if loop else ""
    return str(error) if _is_users(error) else ""


def _disk_line(error: OSError) -> str:
    """The error line for an OSError of a disk; empty for any other OSError."""
    number, name = error.errno or 0, error.filename
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
    if number == errno.ENOENT and path:
        dangling = [each for each in (path, *path.parents) if os.path.lexists(each) and not os.path.exists(each)]
        number, name = (errno.EEXIST, str(dangling[0])) if dangling else (number, name)
    elif number == errno.EEXIST and path and os.path.isdir(path):
        return ""  # made twice: a bug
    if isinstance(error, shutil.Error):  # raised by copying a folder; holds source, target and error text of each file
        (_, name, why), *_ = error.args[0]
        number = int(found[1]) if (found := re.match(r"\[Errno (\d+)\]", str(why))) else 0
    words = REFUSED_BY_DISK.get(number)
    return f"disk: {name or 'a file'}: {words}" if words else ""


def _is_users(error: BaseException) -> bool:
    """True where our own code raised the error on purpose; a library's ValueError is a bug and keeps its traceback.

    An error of ours may come through a library: joblib raises that of a worker again.
    """
    if isinstance(error, TradsysError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
