import polars as pl
import pytest

from tests.vendor_forms.forms import random_bars
from tradsys.research.pipeline.backtesting import _benchmark


@pytest.mark.parametrize(
    ("traded", "market", "name"),
    [
        (True, "ABC", "buy and hold"),
        (False, "ABC", "buy and hold ABC"),
        (False, "XYZ", "buy and hold"),
        (False, None, "buy and hold"),
    ],
    ids=["strategies", "forecasts alone", "a market without bars", "no market"],
)
def test_what_is_held_beside(traded, market, name):
    bars = random_bars(30).with_columns(symbol=pl.lit("ABC"))
    found, held = _benchmark(bars, traded, market)
    assert (found, held.height) == (name, 30)
