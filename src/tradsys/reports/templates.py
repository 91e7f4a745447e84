"""How every page is made from the templates of this folder: an undefined name is an error, HTML is escaped."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template_environment(*, html: bool = True) -> Environment:
    """An environment to which a page adds its filters. html: False for Markdown, which escapes by its own filter."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
