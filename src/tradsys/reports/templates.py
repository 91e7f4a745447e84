"""How every page is made from the templates of this folder: an undefined name is an error, HTML is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from tradsys.core.masking import masked_text


def _without_secrets(value: Any) -> Any:
    """A text that a page shows, masked; what is HTML already was made by us."""
    return masked_text(value) if type(value) is str else value


class _KeptInProcess(BytecodeCache):
    """Compiled templates for the next page of this process: compiling one page's takes longer than filling it."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, Any]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Gives the code that was compiled from the same source."""
        checksum, code = self.kept.get(bucket.key, ("", None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps what was compiled."""
        self.kept[bucket.key] = bucket.checksum, bucket.code


_COMPILED = {True: _KeptInProcess(), False: _KeptInProcess()}  # escaping is compiled in


def template_environment(*, html: bool = True) -> Environment:
    """An environment to which a page adds its filters. html: False for Markdown, which escapes by its own filter."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        bytecode_cache=_COMPILED[html],
        autoescape=html,
        finalize=_without_secrets,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
