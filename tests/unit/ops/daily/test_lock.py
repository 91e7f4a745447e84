import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tradsys.core.errors import TradsysError
from tradsys.ops.daily.lock import HOLDER, held, holder

HOLDING = """
import sys, time
from pathlib import Path
from tradsys.ops.daily.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_with_who_holds_the_folder(tmp_path, other):
    words = f"held by process {other.pid} on {socket.gethostname()} since 20"
    with pytest.raises(TradsysError, match=words), held(tmp_path):
        raise AssertionError("two runs at once")
    reported = holder(tmp_path)
    assert reported["pid"] == other.pid
    assert datetime.now(UTC) - datetime.fromisoformat(reported["since"]) < timedelta(minutes=1)


def test_a_killed_run_blocks_nobody_though_its_note_stays(tmp_path, other):
    other.kill()
    other.wait()
    assert json.loads((tmp_path / HOLDER).read_text())["pid"] == other.pid
    assert holder(tmp_path) is None
    with held(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert holder(tmp_path) is None
    assert not (tmp_path / HOLDER).exists()


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        raise ZeroDivisionError
    with held(tmp_path):
        pass


def test_nobody_holds_a_folder_that_was_never_used(tmp_path):
    assert holder(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()
