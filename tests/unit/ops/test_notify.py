"""Notices reach a server; a service that fails stops nothing."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("apprise", reason="the live extra is not installed: pip install 'tradsys[live]'")

from tradsys.core.errors import TradsysError
from tradsys.doctor import work
from tradsys.ops.notify import Notifier

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise on Python 3.11


@pytest.fixture
def server():
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{http.server_port}", got
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_notice_arrives_without_passwords(server, monkeypatch):
    url, got = server
    monkeypatch.setenv("TRADSYS_NOTIFY", url)
    assert Notifier.from_environment().send("halt", "journal postgresql://me:secret@db/x is locked")
    assert "me:***@db" in got[0]
    assert "secret" not in got[0]


def test_nobody_listening_is_no_error():
    assert not Notifier(["json://127.0.0.1:9"]).send("a", "b")
    assert not Notifier().send("a", "b")


def test_an_unknown_service_is_refused_without_showing_it():
    with pytest.raises(TradsysError, match="URL number 1") as error:
        Notifier(["nonsense://token-of-mine"])
    assert "token-of-mine" not in str(error.value)


def test_the_doctor_sends_a_test_notice_or_says_why_it_cannot(server, monkeypatch, capsys):
    url, got = server
    monkeypatch.setenv("TRADSYS_NOTIFY", url)
    work(["notify=true"])
    assert "1 target accepted the test notice" in capsys.readouterr().out
    assert "tradsys: test notice" in got[0]
    monkeypatch.setenv("TRADSYS_NOTIFY", "json://127.0.0.1:9")
    with pytest.raises(TradsysError, match="not all of 1 target accepted the test notice; check TRADSYS_NOTIFY"):
        work(["notify=true"])
    monkeypatch.delenv("TRADSYS_NOTIFY")
    with pytest.raises(TradsysError, match="TRADSYS_NOTIFY holds no URL"):
        work(["notify=true"])
