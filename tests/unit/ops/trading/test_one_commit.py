"""A step is one transaction, and an order leaves only when its intent is on disk."""

import pytest

from tradsys.core.clock import utc
from tradsys.ops.trading.engine import Engine
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import TradeJournal
from tradsys.serving.brokers import Order, Report


class Watching:
    """A broker that notes what is on disk when an order reaches it."""

    immediate = True

    def __init__(self, path):
        self.path, self.seen = path, []

    def submit(self, order, account):
        self.seen.append([event.kind for event in TradeJournal(self.path, create=False).events()])
        return Report("accepted")


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "journal.db"
    heard = []
    made = Engine(
        None, None, Watching(path), TradeJournal(path), State(), Risk(*[None] * 8, model_band="off"), digest="d",
        listen=lambda kind, _body: heard.append((kind, len(list(TradeJournal(path, create=False).events())))),
    )  # fmt: skip
    made.heard = heard
    made.state.accounts = {"A": None}
    return made


def test_what_was_journaled_is_on_disk_before_an_order_leaves(engine):
    order = Order("id", "A", "entry", 1, utc("2024-01-01"))

    def inside(_moment):
        engine.record(("note", {"what": "x", "why": "y"}))
        engine.state.accounts["A"] = None
        engine.send(order)

    engine._take_through = inside
    engine.step(None)
    assert engine.broker.seen == [["note"]]


def test_news_are_passed_on_once_they_are_on_disk(engine):
    def inside(_moment):
        engine.record(("note", {"what": "a", "why": ""}))
        engine.record(("note", {"what": "b", "why": ""}))
        assert engine.heard == []

    engine._take_through = inside
    engine.step(None)
    assert engine.heard == [("note", 2), ("note", 2)]


def test_a_step_that_fails_keeps_what_had_happened(engine):
    def inside(_moment):
        engine.record(("note", {"what": "a", "why": ""}))
        raise ZeroDivisionError

    engine._take_through = inside
    with pytest.raises(ZeroDivisionError):
        engine.step(None)
    assert engine.heard == [("note", 1)]
    engine.record(("note", {"what": "b", "why": ""}))
    assert engine.heard[-1] == ("note", 2)
