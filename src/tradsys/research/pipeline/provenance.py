"""A run's folder, its log, and the provenance of its numbers."""

import contextlib
import functools
import importlib.metadata
import logging
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from tradsys.core.clock import utc_now
from tradsys.core.drafts import held_alone, remove_dead_drafts
from tradsys.core.endings.stops import Terminated
from tradsys.core.errors import TradsysError
from tradsys.core.extensions import part_files
from tradsys.core.masking import MaskingFilter, masked, masked_text
from tradsys.core.plain_data import Config, Json
from tradsys.core.plurals import counted
from tradsys.core.progress import stages as progress
from tradsys.core.run_code import record_code
from tradsys.core.runs import PACKAGE, code_sha, digest_file, digest_json, link_latest, new_run, write_text
from tradsys.reports.terminal import LogLines
from tradsys.research.pipeline.single_thread import ONE_THREAD

LOG = logging.getLogger("tradsys")
WATCHED = (
    "torch",
    "pytorch-lightning",
    "numpy",
    "polars",
    "lightgbm",
    "xgboost",
    "scikit-learn",
    "hmmlearn",
    "vectorbt",
)


@contextlib.contextmanager
def open_run(
    root: Path, task: str, config_yaml: str, overrides: Sequence[str], resumed: Path | None = None
) -> Iterator[Path]:
    """Creates a run folder with code.json, config.yaml, overrides.txt, log.txt.

    Links `latest` to it on success. A run refused before its first checkpoint leaves no folder. An interrupted training
    stays, to be resumed; other tasks cannot be resumed and leave nothing. A resumed folder is never removed. Raises
    TradsysError where another process writes to it.
    """
    folder = resumed or new_run(root, task)
    if resumed is None:
        record_code(folder)
    with _alone(folder), _logged(folder / "log.txt"):
        write_text(folder / "config.yaml", config_yaml)
        write_text(folder / "overrides.txt", override_lines(overrides))
        _sweep([root / task, *(root / task).glob("*/"), *folder.rglob("*/")])
        try:
            yield folder
        except KeyboardInterrupt as stopped:
            how = "terminated" if isinstance(stopped, Terminated) else "interrupted"
            if task == "train":
                LOG.warning("%s; go on with: python -m tradsys.train %s", how, _resuming(folder, overrides))
            else:
                LOG.warning("%s; nothing is kept; the same command starts from the beginning", how)
                _remove(folder, root)
            raise
        except (ValueError, OSError):
            if resumed is None and not any(folder.rglob("*.ckpt")):
                _remove(folder, root)
            raise
    link_latest(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a run's log: of two processes, the later would mix its files with the other's."""
    log = folder / "log.txt"
    log.touch()
    with held_alone(log) as is_alone:
        if not is_alone:
            raise TradsysError(
                f"run {folder}: another process is writing there; one process at a time makes or resumes a run; wait "
                "for it, or stop it first"
            )
        yield


def _sweep(folders: Sequence[Path]) -> None:
    """Removes half-written files of killed commands in these folders, and logs how many."""
    if gone := remove_dead_drafts(dict.fromkeys(folders)):
        LOG.info("removed %s that a killed command left half written", counted(len(gone), "draft"))


def _resuming(folder: Path, overrides: Sequence[str]) -> str:
    """The arguments that resume a run: its folder, and settings that belong to this machine."""
    own = [o for o in overrides if o.startswith("paths.") or "${oc.env:" in o or "=/" in o or "://" in o or ".." in o]
    return shlex.join([f"resume={folder}", *(masked_text(o) for o in own if not o.startswith("resume="))])


def _remove(folder: Path, root: Path) -> None:
    """Removes a run's folder, and the folders above it up to `root` that it leaves empty."""
    shutil.rmtree(folder, ignore_errors=True)
    for above in (folder.parent, root):
        with contextlib.suppress(OSError):
            above.rmdir()


def config_text(config: Config) -> str:
    """Text of a run's config.yaml: resolved, without secrets."""
    # libyaml writes the same lines in a fifth of the time, and a sweep writes them for every trial
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(masked(config), Dumper=dumper, sort_keys=False, allow_unicode=True))


def override_lines(overrides: Sequence[str]) -> str:
    """Overrides without secrets, one a line."""
    return "".join(f"{masked_text(' '.join(o.splitlines()))}\n" for o in overrides)


@contextlib.contextmanager
def logged_in(folder: Path, config_yaml: str, overrides: Sequence[str]) -> Iterator[None]:
    """Writes a command's records into a folder that several calls add to.

    config.yaml, overrides.txt and log.txt. When the call is refused, removes only a new folder that holds no more than
    these three.
    """
    is_new = not folder.exists()
    write_text(folder / "config.yaml", config_yaml)
    write_text(folder / "overrides.txt", override_lines(overrides))
    with _logged(folder / "log.txt"):
        _sweep([folder.parent, folder, *folder.rglob("*/")])
        try:
            yield
        except KeyboardInterrupt as stopped:
            how = "terminated" if isinstance(stopped, Terminated) else "interrupted"
            LOG.warning("%s; the same command goes on where it stopped; what is finished is kept", how)
            raise
        except ValueError:
            kept = {path.name for path in folder.iterdir() if any(path.rglob("*.*")) or path.is_file()}
            if is_new and kept <= {"config.yaml", "overrides.txt", "log.txt"}:
                _remove(folder, folder.parents[1])
            raise


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Logs tradsys to the terminal and, with times, to the run's log.txt."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    screen = LogLines()
    screen.setLevel(progress.screen_level())
    LOG.setLevel(logging.INFO)
    for handler in (file, screen):
        handler.addFilter(MaskingFilter())
        LOG.addHandler(handler)
    try:
        with progress.total():
            yield
    finally:
        for handler in (file, screen):
            LOG.removeHandler(handler)
        file.close()


def provenance(config: Config, data: Json) -> Json:
    """Time, machine, code, packages, config and data of a run's numbers."""
    return {
        "created": utc_now().isoformat(timespec="seconds"),
        "code_sha": code_sha(),
        "config_digest": config_digest(config),
        "data": data,
        "packages": {name: importlib.metadata.version(name) for name in WATCHED},
        "python": platform.python_version(),
        "environment": dict(environment()),
        "code_digest": code_digest(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "processor": processor(),
        "threads": threads(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "seed": config.get("seed"),
    }


# of the environment: each changes instructions, precision or threads of a library, and so how sums round
VARIABLES = (
    "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip


@functools.cache
def environment() -> Mapping[str, str]:
    """Every installed distribution with its version: any of them may change a number."""
    found = ((each.metadata["Name"], each.version) for each in importlib.metadata.distributions())
    return MappingProxyType(dict(sorted((name.lower().replace("_", "-"), v) for name, v in found if name)))


@functools.cache
def code_digest() -> str:
    """SHA-256 of the installed files of tradsys, committed or not.

    Packages that register parts are included.
    """
    kinds = (".py", ".j2", ".yaml")
    roots = {"": PACKAGE, **part_files()}
    files = {name: [root] if root.is_file() else sorted(root.rglob("*")) for name, root in roots.items()}
    return digest_json(
        {
            f"{name}{path.relative_to(roots[name]).as_posix()}": digest_file(path)
            for name, paths in files.items()
            for path in paths
            if path.suffix in kinds and path.is_file()
        }
    )


def processor() -> str:
    """Model of the processor and of the first GPU.

    Another model may sum in another order and so round differently.
    """
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return ", ".join([model or platform.processor(), *([torch.cuda.get_device_name(0)] if cuda and torch else [])])


def threads() -> dict[str, int | str | None]:
    """Threads of each library: sums over another number of parts round differently."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")
    reported = {name: os.environ.get(name) for name in (*ONE_THREAD, "POLARS_MAX_THREADS")}
    return {"cores": own, "torch": torch.get_num_threads() if torch else None, **reported}


def config_digest(config: Config) -> str:
    """Digest of what determines a result.

    The resolved config without paths, the tracker and the resume flag.
    """
    kept = {k: v for k, v in config.items() if k not in ("paths", "resume", "logger")}
    return digest_json(kept)
