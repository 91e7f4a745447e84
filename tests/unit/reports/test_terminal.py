"""No number is ever cut: a table that is too wide is printed in parts."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.unit.reports.sample_pages import comparison, sweep
from tests.unit.reports.sample_report import sample_report
from tradsys.reports.comparison.page import rich_table
from tradsys.reports.run.console import models_table, print_run, strategies_table
from tradsys.reports.sweep.console import print_sweep
from tradsys.reports.terminal import print_table, screen, table


def printed(whole, width):
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as capture:
        print_table(console, whole)
    return capture.get()


def numbers(whole):
    cells = [str(cell) for column in list(whole.columns)[1:] for cell in column.cells]
    return [n for cell in cells for n in re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"\[/?[a-z ]*\]", "", cell))]


@pytest.mark.parametrize("width", [80, 60, 140])
def test_every_number_of_every_table_is_there_at_80_columns(width):
    report = sample_report(symbol="a_rather_long_name_of_a_strategy_or_symbol")
    for whole in (models_table(report), strategies_table(report), rich_table(comparison())):
        out = printed(whole, width)
        assert "\N{HORIZONTAL ELLIPSIS}" not in out
        assert max(map(len, out.splitlines())) <= width
        assert sorted(set(numbers(whole)) - set(re.findall(r"-?\d+(?:\.\d+)?", out))) == []


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(-1e9, 1e9).map(lambda v: f"{v:.4f}"), min_size=9, max_size=9), max_size=3),
    width=st.integers(40, 200),
)
def test_no_number_is_cut_in_any_width(rows, width):
    whole = table("figures", ("name", *"abcdefghi"))
    for row in rows:
        whole.add_row("a name that is much longer than the screen has room for", *row)
    out = printed(whole, width)
    assert all(number in out for row in rows for number in row)


def test_a_pipe_has_a_width_and_columns_sets_it(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert screen().width == 110
    monkeypatch.setenv("COLUMNS", "80")
    assert screen().width == 80


def test_no_command_draws_by_overwriting_where_nobody_watches(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    print_run(sample_report(), tmp_path)
    print_sweep(sweep(), tmp_path)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
