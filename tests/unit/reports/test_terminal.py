"""No number is ever cut: a table that is too wide is printed in parts."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tests.unit.reports.diagnosis.test_page import diagnosis
from tests.unit.reports.sample_pages import comparison, study, sweep, trading
from tests.unit.reports.sample_report import sample_report
from tradsys.evidence.controls.causality import Finding
from tradsys.ops.machine.preflight import MachineCheck, print_results
from tradsys.ops.trading import status
from tradsys.reports.comparison.page import print_comparison, rich_table
from tradsys.reports.diagnosis.page import print_diagnosis
from tradsys.reports.power_study_page import print_study
from tradsys.reports.run.console import models_table, print_run, strategies_table
from tradsys.reports.sweep.console import print_sweep
from tradsys.reports.terminal import LogLines, print_table, prose, screen, table
from tradsys.research import reproduction
from tradsys.research.leakage.audit import CheckResult, results_table


def printed(whole, width):
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as capture:
        print_table(console, whole)
    return capture.get()


def numbers(whole):
    cells = [str(cell) for column in list(whole.columns)[1:] for cell in column.cells]
    return [n for cell in cells for n in re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"\[/?[a-z ]*\]", "", cell))]


def logged(monkeypatch, capsys, columns, message):
    monkeypatch.setenv("COLUMNS", columns)
    record = logging.LogRecord("tradsys", logging.INFO, "", 0, message, (), None)
    LogLines().handle(record)
    return capsys.readouterr().err


def test_a_log_record_is_one_plain_line_in_a_pipe_and_wraps_under_itself_where_the_width_is_known(monkeypatch, capsys):
    long = " ".join(f"word{k}" for k in range(30)) + " [bold]"
    (line,) = logged(monkeypatch, capsys, "", long).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d " + re.escape(long), line)
    wrapped = logged(monkeypatch, capsys, "80", long).splitlines()
    assert max(map(len, wrapped)) <= 80
    assert [each[:9].strip() for each in wrapped[1:]] == [""] * (len(wrapped) - 1)
    assert " ".join(each[9:] for each in wrapped) == long


@pytest.mark.parametrize(
    ("line", "under"), [("needs    a record of many more days", 9), ("- a record of very many more days", 2)]
)
def test_a_line_wraps_under_its_text_and_not_under_its_label(monkeypatch, capsys, line, under):
    monkeypatch.setenv("COLUMNS", "30")
    screen().print(line, soft_wrap=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(line[:under])
    assert second.startswith(" " * under + second.strip())


def test_the_audit_counts_what_was_asked_apart_from_what_was_not():
    answers = [
        CheckResult("features", "future", None, "", 0.1),
        CheckResult("source", "future", None, "it keeps no history", 0.0),
    ]
    asked = results_table(answers)
    assert asked.title == "Audit: 1 question checked, 1 not, 0 findings"
    assert "row" not in [column.header for column in asked.columns]


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


def test_a_cell_wider_than_the_screen_is_folded_and_not_cut():
    whole = table("health", ("what", "value"), left=("value",))
    whole.add_row("problem", "the exchange answered " + "x" * 90 + " and then nothing")
    out = printed(whole, 80)
    assert max(map(len, out.splitlines())) <= 80
    assert "x" * 90 in "".join(line.removeprefix("problem").strip() for line in out.splitlines())


def shown_by_every_command(folder, monkeypatch):
    """What each renderer prints, by the command it belongs to."""
    audited = [
        CheckResult(
            "features",
            "future",
            Finding("features", "future", "a cut", "bollinger_width_rank_20_126", "SYN0 2023", 0.3),
            "",
            1.0,
        ),
        CheckResult(
            "labels", "past", None, "the experiment has none of these parts, so there is nothing to ask of it", 0.0
        ),
    ]
    facts = [
        MachineCheck(
            "memory", "1,024 GB of which 900 GB are free", "a run needs 734 MB, as its configuration says", "ok"
        )
    ]
    differing = [reproduction.Difference("models.primary.skill_beyond_level", 0.123456789, 0.987654321)]
    causes = ["packages: numpy 2.4.5 then, 2.4.6 now; scipy 1.17.0 then, 1.17.1 now; polars 2.0.9 then, 2.1.0 now"]
    monkeypatch.setattr(status, "summary", lambda *_: SimpleNamespace(**vars(trading())))
    return {
        "train": lambda: print_run(sample_report(symbol="a_rather_long_name_of_a_strategy_or_symbol"), folder),
        "tune": lambda: print_sweep(sweep(), folder),
        "compare": lambda: print_comparison(comparison()),
        "diagnose": lambda: print_diagnosis(diagnosis(), folder),
        "audit study": lambda: print_study(study()),
        "audit": lambda: print_table(screen(), results_table(audited)),
        "doctor": lambda: print_results(facts, screen()),
        "reproduce": lambda: reproduction.print_comparison(
            reproduction.Comparison(80, differing, causes, 0.0), folder, folder
        ),
        "trade status": lambda: status.print_status(prose(), folder, SimpleNamespace(accounts={}), running=True),
    }


def test_nothing_is_wider_than_80_columns_or_cut_at_any_command(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    wrong = {}
    for command, show in shown_by_every_command(Path("runs/train/x"), monkeypatch).items():
        show()
        out = capsys.readouterr().out
        wide = [line for line in out.splitlines() if cell_len(line) > 80]
        if wide or "\N{HORIZONTAL ELLIPSIS}" in out or not out.strip():
            wrong[command] = wide or out
    assert wrong == {}


def test_prose_wraps_between_words_where_the_width_is_known_and_nowhere_else(monkeypatch, capsys):
    path, words = "runs/" + "x" * 100, " ".join(["word"] * 40)
    monkeypatch.setenv("COLUMNS", "80")
    prose().print(f"report {path}")
    prose().print(words)
    prose().out(f'{{"a": "{words}"}}')
    wrapped = capsys.readouterr().out.splitlines()
    assert wrapped[:2] == ["report", path]  # a path can be copied
    assert len(wrapped) > 3
    assert max(map(len, wrapped[2:-1])) <= 80
    assert wrapped[-1] == f'{{"a": "{words}"}}'
    prose().print(f"   {words}")
    assert all(line.startswith("   word") for line in capsys.readouterr().out.splitlines()), "the indent was lost"
    monkeypatch.delenv("COLUMNS")
    prose().print(words)
    assert capsys.readouterr().out == words + "\n"
