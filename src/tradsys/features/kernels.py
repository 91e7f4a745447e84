"""Numeric kernels inside polars expressions, named with parameters, so that the live step finds their equivalent."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import polars as pl

from tradsys.core.tables import Array

PREFIX = "kernel "  # prefix of the alias under which a kernel reads its input


def kernel(x: pl.Expr, name: str, function: Callable[..., Array], **parameters: Any) -> pl.Expr:
    """`function(values [R] float64, **parameters)` of x as an expression, float64 [R].

    name: key of the kernel's row-by-row form in `features.live.rolling`. Parameters are JSON values.
    """
    series = partial(_series, function=function, parameters=parameters)
    marked = x.alias(PREFIX + json.dumps({"name": name, **parameters}))
    return marked.map_batches(series, return_dtype=pl.Float64).name.keep()


def kernel_of(alias: str) -> tuple[str, dict[str, Any]] | None:
    """Name and parameters of the kernel that an alias names; None where it names none."""
    if not alias.startswith(PREFIX):
        return None
    reported = json.loads(alias.removeprefix(PREFIX))
    return reported.pop("name"), reported


def _series(x: pl.Series, function: Callable[..., Array], parameters: dict[str, Any]) -> pl.Series:
    return pl.Series(function(x.cast(pl.Float64).to_numpy(), **parameters))
