"""Small lists that others made: bounded, strict, without characters that hide."""

import os

import pytest

from tradsys.core.errors import BundleError, DataError
from tradsys.core.received import inside, read_csv, read_json

DAMAGED = {
    "a byte of no text": b"symbol\n\xff\xfe\n",
    "a NUL": b"symbol\nBTC\0USD\n",
    "a quote never closed": b'symbol\n"BTC-USD\nETH-USD\n',
    "a field without end": b'symbol\n"' + b"x" * 200_000 + b'"\n',
    "a terminal's command": b"symbol\n\x1b[31mBTC\n",
    "text turned round": "symbol\nBTC\u202eDSU\n".encode(),
    "a zero width": "symbol\nBTC\u200b\n".encode(),
    "larger than any list": b"symbol\n" + b"A" * 2000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_list_is_one_line(name, tmp_path):
    path = tmp_path / "u.csv"
    path.write_bytes(DAMAGED[name])
    most = 1000 if name.startswith("larger") else 2**24
    with pytest.raises(DataError, match="give a CSV") as refused:
        read_csv(path, "give a CSV", DataError, most)
    assert "\n" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_sound_list_is_read(tmp_path):
    path = tmp_path / "u.csv"
    path.write_bytes(b'\xef\xbb\xbfsymbol,kind\r\n BTC-USD , coin\r\n\r\n"=SUM(1)",\n')
    assert read_csv(path, "", DataError) == [["symbol", "kind"], ["BTC-USD", "coin"], ["=SUM(1)", ""]]


@pytest.mark.parametrize("name", ["a" * 256, "\u00e9" * 128, "[" * 5000])
def test_a_received_name_longer_than_any_file_s_is_refused_as_such(name, tmp_path):
    with pytest.raises(BundleError, match="it names the file"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a" * 255) == tmp_path / ("a" * 255)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ledger.json")
    with pytest.raises(BundleError, match="it is no regular file; restore it"):
        read_json(tmp_path / "ledger.json", "restore it")
