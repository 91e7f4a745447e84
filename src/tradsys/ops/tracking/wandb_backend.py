"""Runs in Weights & Biases, offline by default; `wandb sync` uploads them later."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradsys.core.errors import TradsysError
from tradsys.ops.tracking.contents import Record

# otherwise the client would write to the home folder
FOLDERS = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache", "WANDB_CONFIG_DIR": "config"}
WAIT_SECONDS = 30
MODES = ("offline", "online", "disabled")


class WandbBackend:
    """One W&B run; trials are runs of the same group, job type `trial`.

    settings: project, mode (offline | online | disabled). The key is read from WANDB_API_KEY. Nothing of the machine,
    the command line or the source code is sent.
    """

    def __init__(self, settings: Mapping[str, Any], runs: Path) -> None:
        self._project, self._mode = str(settings["project"]), settings["mode"]
        if self._mode not in MODES:
            raise TradsysError(f"logger: logger.mode={self._mode!r}; it is one of {', '.join(MODES)}; set one of them")
        self._folder = runs.resolve()
        self._run: Any = None
        self._group = ""

    def begin(self, record: Record) -> None:
        """Opens the run."""
        for name, folder in FOLDERS.items():
            os.environ.setdefault(name, str(self._folder / "wandb" / folder))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._group = record.name
        self._run = self._init(record, job_type=str(record.tags.get("task", "run")))

    def finish(self, record: Record) -> None:
        """Logs figures, tags, report and bundle."""
        self._log(self._run, record)

    def child(self, record: Record) -> None:
        """A run of the same group, whose id is that of the trial."""
        name = re.sub(r"[^\w-]", "_", f"{self._group}-{record.key}")
        run = self._init(record, job_type="trial", id=name, resume="allow")
        self._log(run, record)
        run.finish()

    def close(self, ok: bool) -> None:
        """Ends the run."""
        self._run.finish(exit_code=0 if ok else 1)

    def fit_logger(self, fit: str) -> Any:
        """Lightning's WandbLogger into the open run."""
        from pytorch_lightning.loggers import WandbLogger  # noqa: PLC0415 - imports torch

        return WandbLogger(experiment=self._run, prefix=fit)

    def _init(self, record: Record, **more: Any) -> Any:
        import wandb  # noqa: PLC0415 - an extra; takes seconds to import

        settings = wandb.Settings(
            silent=True,
            console="off",  # the console output is not sent
            x_disable_meta=True,  # the command line may hold a password
            x_disable_stats=True,
            disable_git=True,
            disable_code=True,
            init_timeout=WAIT_SECONDS,
        )
        return wandb.init(
            project=self._project,
            name=record.name,
            group=self._group,
            config={**record.config, **record.tags},
            dir=str(self._folder),
            mode=self._mode,
            settings=settings,
            reinit="create_new",
            **more,
        )

    def _log(self, run: Any, record: Record) -> None:
        import wandb  # noqa: PLC0415

        run.config.update(dict(record.tags), allow_val_change=True)
        for step, value in record.curve:
            run.log({"score": value, "score_step": step})
        run.summary.update(dict(record.metrics))
        for path in record.files:
            kind = "model" if path.name == "bundle" else "report"
            artefact = wandb.Artifact(re.sub(r"[^\w.-]", "_", f"{record.name}-{path.name}"), type=kind)
            if path.is_dir():
                artefact.add_dir(str(path))
            else:
                artefact.add_file(str(path))
            run.log_artifact(artefact)
