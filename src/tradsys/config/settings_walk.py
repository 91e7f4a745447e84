"""Iterators over all settings of a configuration."""

from collections.abc import Iterator, Mapping
from typing import Any

OWN = "tradsys."


def every_setting(value: Any, path: str = "", *, own: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """Dotted path, own key and value of every setting inside.

    A container comes before its members. The key of a list's member is its index. own: leaves out settings of parts
    from outside this package.
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
    """Dotted path and text of every text inside, or of the value itself."""
    if isinstance(value, str):
        yield "", value
    yield from ((path, inner) for path, _, inner in every_setting(value) if isinstance(inner, str))
