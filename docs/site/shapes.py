"""Docstrings give shapes as `float [N, F]`; brackets there are no links."""

from typing import Any

import griffe


class Shapes(griffe.Extension):
    """Escapes brackets in docstrings before Markdown reads them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once per module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("[", r"\[")
