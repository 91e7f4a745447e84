"""Output on the terminal or to a pipe; tables never cut a number."""

import logging
import os
import re
import textwrap
import time
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PADDING = 3  # a space on either side of a cell, and the line between two
LABEL = re.compile(r" *(?:- |[^ ](?:[^ ]| (?! ))* {2,})")  # `verdict  ...`, `- ...`
PIPE_WIDTH = 110  # of output that goes to a file or a pipe, unless COLUMNS is set


class Screen(Console):
    """A console whose lines of prose wrap between words where the width is known.

    A long path is never broken. `soft_wrap=True` marks a line of prose. In a pipe without COLUMNS it stays one line.
    """

    @property
    def has_width(self) -> bool:
        """Whether the width is known: from a terminal or COLUMNS."""
        return self.is_terminal or os.environ.get("COLUMNS", "").isdigit()

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as rich does; see the class."""
        lines = options.pop("soft_wrap", self.soft_wrap)
        if lines and self.has_width and not options.get("no_wrap"):  # rich either folds a long word or wraps nothing
            objects = tuple(_wrapped(one, self.width) if isinstance(one, str) else one for one in objects)
            lines = all(isinstance(one, str) for one in objects)
        super().print(*objects, soft_wrap=lines, **options)


class LogLines(logging.Handler):
    """Log records on standard error: time of day and message.

    One line each in a pipe. On a terminal a long one wraps between words, under the message.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record; errors of the terminal are handled by logging."""
        try:
            console = Screen(highlight=False, markup=False, stderr=True)
            at = time.strftime("%H:%M:%S ", time.localtime(record.created))
            text = self.format(record)
            if console.has_width:
                text = "\n".join(_filled(line, max(20, console.width - len(at))) for line in text.split("\n"))
            console.print(at + text.replace("\n", "\n" + " " * len(at)), soft_wrap=True, no_wrap=True)
        except Exception:
            self.handleError(record)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(_filled(line, width) for line in text.split("\n"))


def _filled(line: str, width: int) -> str:
    """The line in lines of that width, all under its text: indented as it is, and by the label or dash before it."""
    label = LABEL.match(line)
    indent = " " * len(label[0]) if label and len(label[0]) <= width // 3 else line[: len(line) - len(line.lstrip(" "))]
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def screen(*, stderr: bool = False) -> Screen:
    """Standard output or error: the terminal's width, COLUMNS, or that of a pipe."""
    console = Screen(highlight=False, stderr=stderr)
    return console if console.has_width else Screen(highlight=False, stderr=stderr, width=PIPE_WIDTH)


def prose() -> Screen:
    """Standard output for lines of prose alone, without markup."""
    return Screen(highlight=False, markup=False, soft_wrap=True)


def print_made_up(console: Console, note: str | None) -> None:
    """Prints SYNTHETIC DATA with `note`, the description of the market.

    Nothing if it is None.
    """
    if note:
        console.print(f"SYNTHETIC DATA: {note}", markup=False, style="bold magenta")


def print_in_sample(console: Console, note: str | None) -> None:
    """Prints IN SAMPLE with `note`, of what the bars fitted, unless it is None."""
    if note:
        console.print(f"IN SAMPLE: {note}", markup=False, style="bold magenta")


def table(title: str, columns: tuple[str, ...], left: tuple[str, ...] = ()) -> Table:
    """An empty table whose first column is left-aligned.

    Those in `left` too; all others are right-aligned.
    """
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for k, name in enumerate(columns):
        out.add_column(name, justify="left" if k == 0 or name in left else "right", no_wrap=True)
    return out


def print_table(console: Console, table: Table) -> None:
    """Prints the table, in parts where it is wider than the screen.

    Each part stands under its row names. Only a row name longer than half the screen, and a cell longer than the rest
    of it, are folded over several lines.
    """
    for part in fitted(table, console.width):
        console.print(part)


def fitted(table: Table, width: int) -> list[Table]:
    """The table as one or more that fit into `width` characters.

    The first column is repeated in each.
    """
    widths = [_width(column.header, list(column.cells)) + PADDING for column in table.columns]
    first = min(widths[0], max(12, width // 2))
    parts: list[list[int]] = [[]]
    used = first
    for k in range(1, len(widths)):
        if parts[-1] and used + widths[k] > width:
            parts.append([])
            used = first
        parts[-1].append(k)
        used += widths[k]
    if sum(widths) <= width:
        return [table]
    rest = max(1, width - first - PADDING)
    return [_part(table, at, table.title if n == 0 else None, (first - PADDING, rest)) for n, at in enumerate(parts)]


def _part(table: Table, at: list[int], title: object, most: tuple[int, int]) -> Table:
    """Row names with some columns. most: characters of a row name, and of a cell in a single column."""
    out = Table(title=title, title_justify="left", box=table.box, pad_edge=False, padding=(0, 1))  # type: ignore[arg-type]
    names, *others = (table.columns[0], *(table.columns[k] for k in at))
    out.add_column(names.header, justify="left", overflow="fold", max_width=most[0])
    for column in others:
        alone = most[1] if len(others) == 1 else None
        out.add_column(column.header, justify=column.justify, no_wrap=alone is None, overflow="fold", max_width=alone)
    for cells in zip(*(list(column.cells) for column in (names, *others)), strict=True):
        out.add_row(*cells)
    return out


def _width(header: object, cells: list[object]) -> int:
    """Characters of the widest line of a column."""
    lines = [line for text in (header, *cells) for line in Text.from_markup(str(text)).plain.split("\n")]
    return max(map(cell_len, lines), default=0)
