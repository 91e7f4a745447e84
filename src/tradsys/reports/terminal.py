"""Output on the terminal: plain lines where nobody watches, and tables in which no number is ever cut."""

import os

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PADDING = 3  # a space on either side of a cell, and the line between two
PIPE_WIDTH = 110  # of output that goes to a file or a pipe, unless COLUMNS is set


def screen() -> Console:
    """Standard output: the terminal's width, COLUMNS, or that of a pipe."""
    console = Console(highlight=False)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(highlight=False, width=PIPE_WIDTH)


def table(title: str, columns: tuple[str, ...], left: tuple[str, ...] = ()) -> Table:
    """An empty table: the first column and those in `left` to the left, all others to the right."""
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for k, name in enumerate(columns):
        out.add_column(name, justify="left" if k == 0 or name in left else "right", no_wrap=True)
    return out


def print_table(console: Console, whole: Table) -> None:
    """Prints the table; one that is wider than the screen is printed in parts, each under its row names.

    Only a row name longer than half the screen is folded, over several lines.
    """
    for part in fitted(whole, console.width):
        console.print(part)


def fitted(whole: Table, width: int) -> list[Table]:
    """The table as one or more that fit into `width` characters; the first column is repeated in each."""
    widths = [_width(column.header, list(column.cells)) + PADDING for column in whole.columns]
    first = min(widths[0], max(12, width // 2))
    parts: list[list[int]] = [[]]
    used = first
    for k in range(1, len(widths)):
        if parts[-1] and used + widths[k] > width:
            parts.append([])
            used = first
        parts[-1].append(k)
        used += widths[k]
    if len(parts) == 1 and first == widths[0]:
        return [whole]
    return [_part(whole, at, whole.title if n == 0 else None, first - PADDING) for n, at in enumerate(parts)]


def _part(whole: Table, at: list[int], title: object, first: int) -> Table:
    out = Table(title=title, title_justify="left", box=whole.box, pad_edge=False, padding=(0, 1))  # type: ignore[arg-type]
    names, *others = (whole.columns[0], *(whole.columns[k] for k in at))
    out.add_column(names.header, justify="left", overflow="fold", max_width=first)
    for column in others:
        out.add_column(column.header, justify=column.justify, no_wrap=True)
    for cells in zip(*(list(column.cells) for column in (names, *others)), strict=True):
        out.add_row(*cells)
    return out


def _width(header: object, cells: list[object]) -> int:
    """Characters of the widest line of a column."""
    lines = [line for text in (header, *cells) for line in Text.from_markup(str(text)).plain.split("\n")]
    return max(map(cell_len, lines), default=0)
