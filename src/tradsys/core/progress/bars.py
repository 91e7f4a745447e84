"""A progress bar on standard error, as rich draws it."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn

from tradsys.core.progress.stages import is_quiet


def bar(*columns: str | ProgressColumn, transient: bool = False) -> Progress:
    """A progress bar; without a terminal it prints one final line.

    Hidden under `quiet=true`.
    """
    return Progress(*columns, console=Console(stderr=True), transient=transient, disable=is_quiet())
