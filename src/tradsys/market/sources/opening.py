"""Opens vendors' files, folders and archives within a limit of rows, and lists what is not read."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.parquet import read_parquet
from tradsys.market.sources.tables import json_tables
from tradsys.market.sources.tables.shapes import excel_advice

MAX_ROWS = 20_000_000  # of one file; conf/fetch.yaml sets it
TABLES = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather", ".ipc": "feather"}
TEXTS = (".csv", ".tsv", ".txt", ".prn", ".dat", *json_tables.SUFFIXES)
PACKED = (".gz", ".bz2", ".xz")
MAX_LINE = 4096  # largest average length of a line, in bytes
CHUNK = 1 << 20
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


# first bytes of other kinds of files, and the advice where their name claims text
BEGINNINGS = {
    b"\x1f\x8b": "it is packed with gzip; name it .csv.gz",
    b"BZh": "it is packed with bzip2; name it .csv.bz2",
    b"\xfd7zXZ": "it is packed with xz; name it .csv.xz",
    b"\x28\xb5\x2f\xfd": "it is packed with zstd; unpack it",
    b"PK\x03\x04": "it is a zip archive; name it .zip",
    b"PAR1": "it is a parquet file; name it .parquet",
    b"ARROW1": "it is a feather file; name it .feather",
    b"\xd0\xcf\x11\xe0": "it is a workbook; save each sheet as .csv",
}


@dataclass(frozen=True)
class RawFile:
    """One table to read: a file, or a member of a zip archive.

    name: for messages. stem: its name without suffixes, from which a symbol may be guessed.
    kind: `text`, `parquet` or `feather`. archive: the zip archive of a member, open as long as one of its members is
    kept: its directory is as long as its members are many, and is read once for all of them.
    """

    path: Path
    name: str
    kind: str
    member: str | None = None
    archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)

    @property
    def stem(self) -> str:
        """The name without `.csv.gz` and the like."""
        return _bare(self.name)[0]

    @property
    def is_json(self) -> bool:
        """Whether the text is JSON, which is read as the table that it holds."""
        return _bare(self.member or self.name)[1] in json_tables.SUFFIXES

    @property
    def packed(self) -> bool:
        """Whether the file is compressed or inside an archive."""
        return self.member is not None or self.path.suffix.lower() in PACKED


def list_files(source: Path) -> tuple[list[RawFile], list[str]]:
    """Tables of a file, folder or archive by name, and names of skipped files.

    Raises DataError where there is no table. A folder is read without its sub-folders.
    """
    if not source.exists():
        raise DataError(f"sources: {source} does not exist; give the path of a vendor's file or folder")
    if source.is_file():
        found, skipped = _tables_of(source)
        if not found:
            raise DataError(f"{source.name}: {_not_a_table(skipped, source)}; {_next(skipped)}")
        return found, skipped
    found, skipped = [], []
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        tables, others = ([], [f"{path.name}/"]) if path.is_dir() else _tables_of(path)
        found, skipped = [*found, *tables], [*skipped, *others]
    if not found:
        raise DataError(
            f"sources: {source} is a folder without tables, it holds {skipped[:8] or 'nothing'}; {_next(skipped)}"
        )
    return found, skipped


def _next(skipped: list[str]) -> str:
    """The next step where there is no table."""
    folders = [name for name in skipped if name.endswith("/")]
    if folders:
        first = folders[0].removesuffix("/")
        return f"folders within a folder are not read; fetch each, such as path=.../{first} symbol={first}"
    return excel_advice(skipped) or _READ


_KINDS = ", ".join((*TEXTS[:3], json_tables.SUFFIXES[0], *TABLES))
_READ = (
    f"tables are {_KINDS}; the texts among them also as {', '.join(PACKED)} or in a .zip; unpack others, and give "
    "such a file or the folder of them"
)


def _not_a_table(skipped: list[str], source: Path) -> str:
    return f"holds no table but {skipped[:6]}" if skipped != [source.name] else "is no table"


def _bare(name: str) -> tuple[str, str]:
    """Name without suffixes, and the suffix of its kind, in any case."""
    lower = name.lower()
    for packed in ("", *PACKED, ".zip"):
        for suffix in (*TEXTS, *TABLES):
            if lower.endswith(suffix + packed):
                return name[: len(name) - len(suffix + packed)], suffix
    for packed in (*PACKED, ".zip"):
        if lower.endswith(packed):
            return name[: -len(packed)], ""
    return name, ""


def _tables_of(path: Path) -> tuple[list[RawFile], list[str]]:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _members(path)
    kind = _bare(path.name)[1]
    if kind in TABLES and suffix in TABLES:
        return [RawFile(path, path.name, TABLES[kind])], []
    if kind in TEXTS or (suffix in PACKED and kind not in TABLES):
        return [RawFile(path, path.name, "text")], []
    return [], [path.name]


def _members(path: Path) -> tuple[list[RawFile], list[str]]:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise DataError(f"{path.name}: cannot be opened as a zip archive; download it again") from error
    infos = [i for i in archive.infolist() if not i.is_dir() and not _is_litter(i.filename)]
    locked = [i.filename for i in infos if i.flag_bits & 1]
    if locked:
        raise DataError(f"{path.name}: {locked[:3]} need a password; unpack the archive and give the folder")
    tables = [i for i in infos if _bare(i.filename)[1] in TEXTS and not i.filename.lower().endswith((*PACKED, ".zip"))]
    read = {i.filename for i in tables}
    skipped = [f"{path.name}/{i.filename}" for i in infos if i.filename not in read]
    alone = len(tables) == 1
    return [
        RawFile(path, path.name if alone else Path(i.filename).name, "text", i.filename, archive)
        for i in sorted(tables, key=lambda i: i.filename)
    ], skipped


def _is_litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith(".")


@contextmanager
def _stream(raw: RawFile) -> Iterator[BinaryIO]:
    suffix = raw.path.suffix.lower()
    try:
        if raw.archive is not None and raw.member is not None:
            with raw.archive.open(raw.member) as file:
                yield file  # type: ignore[misc]
        else:
            opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(suffix, open)
            with opener(raw.path, "rb") as file:  # type: ignore[operator]
                yield file
    except DAMAGED as error:
        raise DataError(f"{raw.name}: cannot be unpacked ({error}); it is damaged; download it again") from error


def head(raw: RawFile, n_bytes: int = 1 << 18) -> bytes:
    """The first bytes of a text, unpacked."""
    if raw.is_json:
        return _json_text(raw, raw.path.stat().st_mtime_ns)[:n_bytes]
    with _stream(raw) as file:
        start = file.read(n_bytes)
    _check_text(start, raw.name)
    return start


def _check_text(start: bytes, name: str) -> None:
    """Raises DataError where the first bytes are those of another kind of file."""
    if start[257:262] == b"ustar":
        raise DataError(f"{name}: it is no text: it is a tar archive; unpack it and give the file or its folder")
    for mark, step in BEGINNINGS.items():
        if start.startswith(mark):
            book = b"xl/" in start and mark.startswith(b"PK")
            what = f"it is a workbook; save each sheet of {name} as .csv" if book else step
            raise DataError(f"{name}: it is no text: {what}, and give that")


def content(raw: RawFile, max_rows: int = MAX_ROWS) -> bytes | Path:
    """A text for a reader: its path where it is on disk uncompressed, else its bytes.

    Lines are counted while they are unpacked: DataError as soon as there are more than `max_rows`, so that a
    small archive cannot fill the memory.
    """
    if raw.is_json:
        return _json_text(raw, raw.path.stat().st_mtime_ns)
    if not raw.packed and raw.path.stat().st_size < max_rows:
        return raw.path
    kept, n_lines, n_bytes = bytearray(), 0, 0
    with _stream(raw) as file:
        while chunk := file.read(CHUNK):
            n_lines += chunk.count(b"\n")
            n_bytes += len(chunk)
            if n_lines > max_rows + 64 or n_bytes > 4 * CHUNK + MAX_LINE * n_lines:
                raise _too_large(raw.name, max_rows, f"unpacks to more than {n_lines:,} lines, {n_bytes:,} bytes")
            if raw.packed:
                kept += chunk
    return bytes(kept) if raw.packed else raw.path


@lru_cache(maxsize=1)
def _json_text(raw: RawFile, changed: int) -> bytes:  # noqa: ARG001 - part of the cache key
    """The table of a JSON as text; DataError above the limit of its size, before more of it is decompressed."""
    with _stream(raw) as file:
        data = file.read(json_tables.MAX_BYTES + 1)
    if len(data) > json_tables.MAX_BYTES:
        raise DataError(f"{raw.name}: a JSON of over {json_tables.MAX_BYTES >> 20} MiB; split it, or save it as .csv")
    return json_tables.as_text(data, raw.name)


def table(raw: RawFile, max_rows: int = MAX_ROWS) -> pl.DataFrame:
    """A parquet or feather file.

    Raises DataError where it is damaged or has more than `max_rows` rows.
    """
    try:
        if raw.kind == "parquet":
            n_rows = pl.scan_parquet(raw.path, glob=False).select(pl.len()).collect().item()
            if n_rows <= max_rows:
                return read_parquet(raw.path, "download it again")
        else:
            n_rows = pl.scan_ipc(raw.path, glob=False).select(pl.len()).collect().item()
            if n_rows <= max_rows:
                return pl.read_ipc(io.BytesIO(raw.path.read_bytes()))
    except DataError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise DataError(
            f"{raw.name}: cannot be read as a table: it is damaged or no {raw.kind} file; download it again"
        ) from error
    raise _too_large(raw.name, max_rows, f"has {n_rows:,} rows")


def _too_large(name: str, max_rows: int, what: str) -> DataError:
    return DataError(
        f"{name}: {what}, the limit is max_rows={max_rows:,} rows of one file; check that it is the right file, "
        "split it, or give a larger max_rows="
    )
