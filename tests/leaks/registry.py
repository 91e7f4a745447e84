"""Leaks to plant: each one small patch of one real part, with the part and the question that must name it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl

CLOSE = pl.col("close")


@dataclass(frozen=True)
class Leak:
    name: str
    part: str
    question: str
    plant: Callable  # (monkeypatch, experiment) -> experiment


LEAKS: list[Leak] = []


def leak(name: str, part: str, question: str):
    def keep(plant):
        LEAKS.append(Leak(name, part, question, plant))
        return plant

    return keep


@dataclass(frozen=True)
class Planted:
    name: str
    rows: pl.Expr
    warmup: int = 0

    def expr(self):
        return self.rows


def with_features(experiment, *extra):
    old = experiment.features
    return replace(experiment, features=old.like([*old.features, *extra]))
