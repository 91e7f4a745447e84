"""The one walk over the settings of a configuration."""

from collections.abc import Iterator, Mapping
from typing import Any

OWN = "tradsys."


def every_setting(value: Any, path: str = "", *, own: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """Dotted path, own key and value of every setting inside, those that hold further ones before what they hold.

    The key of a list's member is its place. own: without what parts from outside this package hold.
    """
    if isinstance(value, Mapping):
        if own and not str(value.get("_target_", OWN)).startswith(OWN):
            return
        named = value.items()
    elif isinstance(value, list | tuple):
        named = enumerate(value)  # type: ignore[assignment]
    else:
        return
    for key, inner in named:
        where = f"{path}.{key}" if path else str(key)
        yield where, key, inner
        yield from every_setting(inner, where, own=own)


def every_text(value: Any) -> Iterator[tuple[str, str]]:
    """Dotted path and text of every value that is one, or of the value itself."""
    if isinstance(value, str):
        yield "", value
    yield from ((path, inner) for path, _, inner in every_setting(value) if isinstance(inner, str))
