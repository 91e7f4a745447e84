"""Promotes the bundle of a run to models/: verified, numbered, copied atomically."""

import shutil
from pathlib import Path

from tradsys.core.drafts import remove_dead_drafts
from tradsys.core.errors import BundleError, GateError
from tradsys.core.received import check_folder_name
from tradsys.core.runs import written_atomically
from tradsys.serving.bundle import Bundle


def promote(run: Path, models: Path, name: str, *, force: bool = False) -> Path:
    """Copies the run's bundle to `models/name/n/`; returns that folder.

    n counts from 1. The bundle is loaded first, which checks every hash. GateError unless its verdict is `edge` or
    `force`.
    """
    check_folder_name("export: name", name, BundleError)
    if not (run / "bundle").is_dir():
        raise BundleError(f"export: {run} holds no bundle; a finished training run has one; give run=runs/train/<run>")
    card = Bundle.load(run / "bundle").card
    verdict = card.get("verdict", {}).get("kind", "not evaluated")
    if verdict != "edge" and not force:
        raise GateError(
            f"export: the verdict of {run.resolve().name} is {verdict!r}; only `edge` is promoted; "
            "give force=true to export it for research all the same, the card keeps the verdict"
        )
    remove_dead_drafts([models / name])
    taken = [int(p.name) for p in (models / name).glob("*") if p.name.isdigit()]
    folder = models / name / str(max(taken, default=0) + 1)
    with written_atomically(folder) as draft:
        shutil.copytree(run / "bundle", draft)
    Bundle.load(folder)
    return folder
