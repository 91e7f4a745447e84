"""Detects a text's form from its first lines: encoding, separator, header, columns."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tradsys.core.errors import DataError
from tradsys.market.sources.stamps.zones import split_zone
from tradsys.market.sources.tables.shapes import tickers_of

SEPARATORS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
DECIMALS: Mapping[str, str] = {"point": ".", "dot": ".", "comma": ","}
WORDS: Mapping[str, str] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "space", ".": "point"}


@dataclass(frozen=True)
class FormKeys:
    """The user's keys for a file's form; None: detected from the file.

    separator: `comma`, `semicolon`, `tab`, `pipe`, `space` or the character. decimal: `point` or `comma`.
    date_format: a strptime format, or epoch_s, epoch_ms, epoch_us, epoch_ns, excel. zone: IANA name for stamps
    without one. header: how many header rows there are (0: none), or the names of the columns.
    stamp: `open` or `close`, the moment of a bar that its stamp states. price_scale: divisor of prices, such as 1e9
    where a vendor counts them in billionths.
    """

    separator: str | None = None
    decimal: str | None = None
    date_format: str | None = None
    zone: str | None = None
    header: int | Sequence[str] | None = None
    stamp: str | None = None
    price_scale: float | None = None

    def __post_init__(self) -> None:
        for name, words in (("separator", SEPARATORS), ("decimal", DECIMALS)):
            value = getattr(self, name)
            if value is None:
                continue
            plain = words.get(str(value), value)
            if plain not in words.values():
                raise DataError(f"sources: {name}={value!r}; it is one of {', '.join(words)}; give one of these")
            object.__setattr__(self, name, plain)
        if self.stamp not in (None, "open", "close"):
            raise DataError(f"sources: stamp={self.stamp!r}; a vendor stamps a bar's open or its close; give one")
        check_zone(self.zone)
        scale = self.price_scale
        if scale is not None and (
            isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < 1e15
        ):
            raise DataError(f"sources: price_scale={scale!r}; it is a number > 0 such as 10000 or 1e9; correct it")
        self._check_header()

    def _check_header(self) -> None:
        value = self.header
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 40):
            return
        names = [n for n in value.replace("|", ",").split(",")] if isinstance(value, str) else value
        if isinstance(names, Sequence) and names and all(isinstance(n, str) for n in names):
            object.__setattr__(self, "header", tuple(n.strip().lower() for n in names))
            return
        raise DataError(
            f"sources: header={value!r}; it is a number of header rows from 0 to 40, or the columns' names such as "
            "header=[time,open,high,low,close,volume]"
        )

    def given(self) -> dict[str, object]:
        """The keys that were given."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


@dataclass(frozen=True)
class FileForm:
    """The detected form of a text file.

    names: of its columns, lower case. skip: physical lines before the first row of data. tickers: where every
    column belongs to one ticker (yfinance), the ticker of each column, else empty.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    skip: int
    header_rows: int
    tickers: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = "no header row" if self.header_rows == 0 else f"{self.header_rows} header row(s)"
        return f"{self.encoding}, separator {WORDS[self.separator]}, {rows}"


def check_zone(zone: str | None) -> None:
    """Raises DataError for an unknown zone."""
    try:
        if zone is not None:
            ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise DataError(
            f"sources: zone={zone!r} is no IANA name such as UTC, America/New_York, Europe/Berlin; give one"
        ) from error


MAX_PREAMBLE = 40  # lines before the header
PRICE_WORDS = ("open", "high", "low", "close", "adj close", "volume")
TIME_WORDS = ("date", "datetime", "time", "timestamp")
# columns of files without a header row, by vendor and width
BINANCE = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
KRAKEN = ("time", "open", "high", "low", "close", "volume", "trades")
METATRADER = ("date", "time", "open", "high", "low", "close", "volume")
PLAIN = ("time", "open", "high", "low", "close", "volume")
TICKERED = ("symbol", *PLAIN)
_NUMBER = re.compile(r"^[+\-\u2212$€£]?\d[\d.,' \u00a0]*(?:[eE][+-]?\d+)?\s?[%KMBTkmbt]?$")
_CLOCK = re.compile(r"^\d{1,2}:\d{2}(?::\d{2})?$")
_DATE = re.compile(r"^\d{1,4}[./ -](?:\d{1,2}|[A-Za-z]{3,9})[./ ,-]+\d{1,4}(?:[T ;,].*)?$|^\d{8}(?:[T ]\d{2}.*)?$")


def sniff(data: bytes, keys: FormKeys, known: Collection[str], name: str) -> FileForm:
    """The form of a text from its first bytes.

    known: header names that are worth looking for, lower case; a final `*` takes any ending. keys: the user's,
    which take precedence. Raises DataError with the keys to give where the header cannot be found.
    """
    encoding, text = _decoded(data)
    lines = text.splitlines()
    if len(data) >= 1 << 18 and len(lines) > 1:
        lines = lines[:-1]  # the last one is cut
    if not any(line.strip() for line in lines):
        raise DataError(f"{name}: cannot be read as a table: it is empty; check that it was downloaded completely")
    separator = keys.separator or _separator(lines)
    rows = [_split_line(line, separator) for line in lines]
    if keys.header is not None:
        return _given_header(encoding, separator, rows, keys.header, name)
    at = _header_row(rows, known)
    if at is None:
        return _without_header(encoding, separator, rows, name)
    few = sum(_is_known(cell, known) for cell in rows[at]) <= 1  # only the time is recognised: no columns of one symbol
    if few and (wide := tickers_of(rows[at])):
        names = ["|".join(wide[cell]) if cell in wide else _clean(cell) for cell in rows[at]]
        tickers = tuple(wide[cell][1] if cell in wide else "" for cell in rows[at])
        return FileForm(encoding, separator, tuple(names), at + 1, 1, tickers)
    return _with_header(encoding, separator, rows, at, name)


def _decoded(data: bytes) -> tuple[str, str]:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return encoding, data[: len(data) // 2 * 2].decode(encoding, errors="ignore")
    if len(data) > 8 and data[1:512:2].count(0) > len(data[1:512:2]) // 2:  # without a mark
        return "utf-16-le", data[: len(data) // 2 * 2].decode("utf-16-le", errors="ignore")
    try:
        return "utf-8", data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start > len(data) - 4:  # a letter cut at the end of the sample
            return "utf-8", data.decode("utf-8-sig", errors="ignore")
        return "cp1252", data.decode("cp1252", errors="replace")


def _split_line(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=separator != " "), [])
    except csv.Error:
        cells = line.split(separator)
    return [cell.strip() for cell in cells]


def _separator(lines: Sequence[str]) -> str:
    """The character that splits most lines into the same number of cells; of equals, the most cells."""
    if match := re.match(r"^\ufeff?sep=(.)$", lines[0].strip()):
        return match[1]
    seen = [line for line in lines[:200] if line.strip()]
    best, best_score = ",", (0.0, 0)
    for separator in (";", "\t", ",", "|"):
        widths = Counter(len(_split_line(line, separator)) for line in seen)
        width, count = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]))
        if (
            width > 1
            and (count / len(seen), width) > best_score
            and count / len(seen) > best_score[0] + 0.1 * (best_score[1] >= 5)
        ):
            best, best_score = separator, (count / len(seen), width)
    return best


def _clean(cell: str) -> str:
    return cell.strip().strip("<>\"'").lstrip("\ufeff").strip().rstrip("*").lower()


def _is_known(cell: str, known: Collection[str]) -> bool:
    word = _clean(cell)
    return bool(word) and any(word == k or (k.endswith("*") and word.startswith(k[:-1])) for k in known)


def _is_value(cell: str) -> bool:
    return bool(_NUMBER.match(cell) or _CLOCK.match(cell) or _DATE.match(cell))


def _header_row(rows: Sequence[list[str]], known: Collection[str]) -> int | None:
    """The first line that names two known columns or more and holds no number."""
    for at, row in enumerate(rows[:MAX_PREAMBLE]):
        hits = {_clean(cell) for cell in row if _is_known(cell, known)}
        if len(hits) >= 2 and not any(_NUMBER.match(cell) for cell in row if cell):
            return at
    for at, (row, below) in enumerate(itertools.pairwise(rows[: MAX_PREAMBLE + 1])):
        words = len(row) == len(below) > 1 and all(row) and not any(map(_is_value, row))
        if words and any(map(_is_value, below)) and at == next((k for k, r in enumerate(rows) if any(r)), 0):
            return at
    return None


def _names(cells: Sequence[str], name: str) -> tuple[str, ...]:
    named = [_clean(cell) or f"unnamed_{at}" for at, cell in enumerate(cells)]
    twice = sorted({n for n in named if named.count(n) > 1})
    if twice:
        raise DataError(f"{name}: header names appear twice: {twice}; rename one, or give header=[...] with all names")
    return tuple(named)


def _with_header(encoding: str, separator: str, rows: Sequence[list[str]], at: int, name: str) -> FileForm:
    end = at + 1
    while end < len(rows) and end - at < 4 and rows[end] and not any(map(_is_value, rows[end])) and any(rows[end]):
        end += 1  # further header rows: tickers, the index's name, units
    head = rows[at:end]
    if end - at > 1 and (tickers := _tickers(head)):
        prices = next(row for row in head if _prices(row) >= 2)
        names = [f"{_clean(cell)}|{tick}" for cell, tick in zip(prices[1:], tickers, strict=True)]
        first = next((_clean(row[0]) for row in reversed(head) if _clean(row[0]) in TIME_WORDS), "date")
        return FileForm(encoding, separator, _names([first, *names], name), end, end - at, ("", *tickers))
    skip = at + 1 if end == len(rows) and len(rows) > at + 1 else end
    while skip < len(rows) - 1 and not any(rows[skip]):
        skip += 1
    width = max((len(row) for row in rows[skip : skip + 50] if row), default=0)
    cells = [*rows[at], *([""] if width == len(rows[at]) + 1 and _trailing(rows[skip:]) else [])]
    return FileForm(encoding, separator, _names(cells, name), skip, sum(any(row) for row in rows[at:skip]))


def _trailing(rows: Sequence[list[str]]) -> bool:
    """Whether every line ends with a separator."""
    full = [row for row in rows[:50] if len(row) > 1]
    return bool(full) and all(row[-1] == "" for row in full)


def _prices(row: Sequence[str]) -> int:
    return sum(_clean(cell) in PRICE_WORDS for cell in row[1:])


def _tickers(head: Sequence[list[str]]) -> tuple[str, ...]:
    """The ticker of each column after the first, where one header row holds prices and another tickers."""
    if not any(_prices(row) >= 2 for row in head):
        return ()
    for row in head:
        cells = row[1:]
        if len(row) == len(head[0]) and cells and all(cells) and _prices(row) < len(cells) / 2:
            return tuple(cells)
    return ()


def _data_row(rows: Sequence[list[str]]) -> int | None:
    for at, row in enumerate(rows[:MAX_PREAMBLE]):
        if len(row) >= 5 and sum(map(_is_value, row)) >= len(row) - 2:
            return at
    return None


def _without_header(encoding: str, separator: str, rows: Sequence[list[str]], name: str) -> FileForm:
    at = _data_row(rows)
    if at is None:
        wide = next((row for row in rows if len(row) > 1), rows[0])
        raise DataError(
            f"{name}: no header row is found with separator {WORDS.get(separator, separator)}; a line is {wide[:8]}; "
            f"give separator= ({', '.join(SEPARATORS)}), or header=[time,open,high,low,close,volume] with the names "
            "of its columns"
        )
    first, width = rows[at], len(rows[at])
    names = next((one for one in _guessed_names(first) if _ohlc_fit(rows[at : at + 500], one)), None)
    if names is None:
        raise DataError(
            f"{name}: it has no header row and {width} columns such as {first[:8]}, in no known order; give "
            f"header=[{','.join((*PLAIN, *(f'other{k}' for k in range(1, width)))[:width])}] in the file's own order"
        )
    return FileForm(encoding, separator, names, at, 0)


def _guessed_names(row: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Possible orders of columns for a first row, the likeliest first."""
    width = len(row)
    if width >= 6 and _DATE.match(row[0]) and (_CLOCK.match(row[1]) or re.fullmatch(r"\d{4}|\d{6}", row[1])):
        yield (*METATRADER, *(f"unnamed_{k}" for k in range(7, width)))[:width]
    if 11 <= width <= 12 and row[0].isdigit() and row[6].isdigit():
        yield BINANCE[:width]
    if not _is_value(row[0]) and width >= 6 and _is_value(row[1]):
        yield (*TICKERED, *(f"unnamed_{k}" for k in range(7, width)))[:width]
        return
    if width == 7:
        yield KRAKEN
    if width in (5, 6):
        yield PLAIN[:width]


def _ohlc_fit(rows: Sequence[list[str]], names: Sequence[str]) -> bool:
    """Whether high and low bound open and close in nearly every row, read in this order."""
    places = [names.index(n) for n in ("open", "high", "low", "close")]
    fits = total = 0
    for row in rows:
        if len(row) != len(names):
            continue
        try:
            o, h, low, c = (float(row[p].replace(",", ".").strip("$€£")) for p in places)
        except ValueError:
            continue
        total += 1
        fits += low <= min(o, c) and h >= max(o, c)
    return total == 0 or fits >= 0.9 * total


def _given_header(
    encoding: str, separator: str, rows: Sequence[list[str]], header: int | Sequence[str], name: str
) -> FileForm:
    """The form by the user's column names or number of header rows."""
    if isinstance(header, int):
        filled = [at for at, row in enumerate(rows) if any(row)]
        if header == 0:
            return _without_header(encoding, separator, rows, name)
        if header > len(filled):
            raise DataError(f"{name}: header={header}, but it has {len(filled)} lines; give a smaller number")
        at, end = filled[0], filled[header - 1] + 1
        if header > 1 and (tickers := _tickers(rows[at:end])):
            prices = next(row for row in rows[at:end] if _prices(row) >= 2)
            names = [f"{_clean(cell)}|{tick}" for cell, tick in zip(prices[1:], tickers, strict=True)]
            return FileForm(encoding, separator, _names(["date", *names], name), end, header, ("", *tickers))
        return FileForm(encoding, separator, _names(rows[end - 1], name), end, header)
    begins = _data_row(rows)
    at = _first_of(rows, header) if begins is None else begins
    header = _zoned(header, rows[at - 1] if at else ())
    if len(rows[at]) != len(header):
        raise DataError(
            f"{name}: header names {len(header)} columns {list(header)}, its lines have {len(rows[at])} such as "
            f"{rows[at][:8]}; name each column once"
        )
    return FileForm(encoding, separator, _names(list(header), name), at, 0)


def _first_of(rows: Sequence[list[str]], header: Sequence[str]) -> int:
    """The first row that holds values where the names given have prices; 0 where none does."""
    places = [k for k, n in enumerate(header) if n in PRICE_WORDS]
    fits = (
        at
        for at, r in enumerate(rows[:MAX_PREAMBLE])
        if len(r) == len(header) and all(map(_is_value, (r[p] for p in places)))
    )
    return next(fits, 0)


def _zoned(header: Sequence[str], own: Sequence[str]) -> Sequence[str]:
    """The user's names; a zone in the file's own header, such as `Time (EST)`, is kept."""
    if len(own) != len(header):
        return header
    zones = [split_zone(_clean(cell))[1] for cell in own]
    return [
        f"{name} ({zone})" if zone and not split_zone(name)[1] else name
        for name, zone in zip(header, zones, strict=True)
    ]
