"""The research journal as Markdown and as one HTML page."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

from tradsys.core.runs import write_text
from tradsys.reports import wording
from tradsys.reports.page import render_page
from tradsys.reports.templates import template_environment
from tradsys.reports.wording import escaped

MOST_SETTINGS = 30


def write_journal(journal: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes journal.md and journal.html into `folder`; returns both paths.

    Each atomically. journal: the dict of `research.journal.journal`.
    """
    paths = folder / "journal.md", folder / "journal.html"
    write_text(paths[0], render_markdown(journal))
    write_text(paths[1], render_html(journal))
    return paths


def render_markdown(journal: Mapping[str, Any]) -> str:
    """The journal as Markdown.

    Text from runs is escaped, so that it is never read as markup.
    """
    return _markdown_environment().get_template("journal/journal.md.j2").render(journal=journal, most=MOST_SETTINGS)


def render_html(journal: Mapping[str, Any]) -> str:
    """The journal as one self-contained HTML page; every text in it is escaped."""
    filters: dict[str, Callable[..., Any]] = {"dsr": wording.confidence, "setting": setting}
    return render_page("journal/journal.html.j2", filters=filters, journal=journal, most=MOST_SETTINGS)


def setting(value: object) -> str:
    """A config value on one line, at most 80 characters.

    null, true and false as in YAML.
    """
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _markdown_environment() -> Environment:
    environment = template_environment(html=False)
    environment.filters |= {name: getattr(wording, name) for name in ("counted", "interval", "listed", "moment")}
    environment.filters |= {"dsr": wording.confidence, "md": escaped, "setting": setting}
    return environment
