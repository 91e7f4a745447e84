"""How every page is made from the templates of this folder: an undefined name is an error, HTML is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tradsys.core.masking import masked_text


def _without_secrets(value: Any) -> Any:
    """A text that a page shows, masked; what is HTML already was made by us."""
    return masked_text(value) if type(value) is str else value


def template_environment(*, html: bool = True) -> Environment:
    """An environment to which a page adds its filters. html: False for Markdown, which escapes by its own filter."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=html,
        finalize=_without_secrets,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
