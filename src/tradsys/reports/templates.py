"""The jinja2 environment of all pages: undefined names are errors, HTML is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from tradsys.core.masking import masked_text


def _without_secrets(value: Any) -> Any:
    """A text of a page, masked; HTML of our own code passes unchanged."""
    return masked_text(value) if type(value) is str else value


class _KeptInProcess(BytecodeCache):
    """Cache of compiled templates within this process: compiling takes longer than rendering."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, Any]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Loads the compiled code of the same source."""
        checksum, code = self.kept.get(bucket.key, ("", None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Stores the compiled code."""
        self.kept[bucket.key] = bucket.checksum, bucket.code


_COMPILED = {True: _KeptInProcess(), False: _KeptInProcess()}  # escaping is part of the compiled code


def template_environment(*, html: bool = True) -> Environment:
    """An environment to which a page adds its filters.

    html: False for Markdown, which escapes by its own filter.
    """
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        bytecode_cache=_COMPILED[html],
        autoescape=html,
        finalize=_without_secrets,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
