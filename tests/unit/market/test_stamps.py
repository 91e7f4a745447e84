"""Formats of moments that the signs of a text rule out are never tried."""

from datetime import datetime

import polars as pl
import pytest

from tradsys.market.sources.stamps import times
from tradsys.market.sources.stamps.spelling import could_read, signs_of

FORMATS = [d + c for d in (*times._CLEAR, *(one for pair in times._ORDERS for one in pair)) for c in times._CLOCKS]
MOMENTS = [datetime(2024, 1, 2, 3, 4, 5, 678), datetime(1999, 12, 31, 23, 59, 59), datetime(2010, 10, 20)]


TEXTS = pl.Series([m.strftime(form.replace("%.f", ".%f")) for form in FORMATS for m in MOMENTS])
SIGNS = [signs_of(TEXTS[k : k + 1]) for k in range(len(TEXTS))]


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_is_ruled_out_by_what_it_reads(form):
    """Every text of every format: what the parser reads is let through."""
    read = times._try(TEXTS, form).is_not_null()
    assert read.any() or "%d" not in form
    rows = zip(TEXTS, SIGNS, read, strict=True)
    ruled_out = [t for t, signs, is_read in rows if is_read and not could_read(form, signs)]
    assert ruled_out == []


def test_few_formats_are_tried_on_a_column(monkeypatch):
    tried = []
    plain = times._try
    monkeypatch.setattr(times, "_try", lambda text, form: tried.append(form) or plain(text, form))
    text = pl.Series([f"{day:02d}/01/2024" for day in range(1, 29)])
    read, form = times._naive(text, times.TimeKeys(), [], "x.csv")
    assert (form, read[27]) == ("%d/%m/%Y", datetime(2024, 1, 28))
    assert len(tried) < 40
