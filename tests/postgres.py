"""A PostgreSQL server of the tests' own, started and thrown away."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def programs():
    """The folder of initdb and pg_ctl: on the path, or where Debian keeps the newest version; None without them."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def unprivileged():
    """Keywords that make subprocess leave root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving():
    """URL prefix of a fresh server that trusts every local user."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'tradsys[postgres]'")
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql brings initdb and pg_ctl")
    home, port, who = Path(tempfile.mkdtemp(prefix="pg")), free_port(), unprivileged()
    if who:
        os.chown(home, who["user"], who["group"])

    def call(*words):
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=home, **who)
        assert done.returncode == 0, done.stderr + done.stdout

    data, log = str(home / "data"), str(home / "log")
    try:
        call(folder / "initdb", "-D", data, "-U", "keeper", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        call(folder / "pg_ctl", "-D", data, "-l", log, "-o", settings, "-w", "start")
        yield f"postgresql://keeper:secret@127.0.0.1:{port}/"
        call(folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def change(url, sql):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)
