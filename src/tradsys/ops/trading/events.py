"""Bodies of a bot's journaled events as JSON values; `State` is built from them. Times: ISO text, UTC.

kind        body
start       Start       settings of a bot, journaled at every start
swap        Swap        a newer bundle and its settings
bars        Bars        closed bars of one moment
prediction  Prediction  forecasts of one moment
decision    Decision    the action per symbol
intent      Any         an order before it is sent, `order_body`
order       OrderEnd    the status of a sent order
fill        Any         an execution, `fill_body`
carry       Carry       funding and dividends of a position in a bar
split       Split       new units for old ones
slippage    Slippage    an entry's price relative to its bar's open
watch       Watch       live figures of the model compared with its run's
halt        Halt        new entries are stopped
foreign     Foreign     a position that is not the bot's
request     Request     a person's request
note        Note        a remark in words
resume, stop            Why
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NotRequired, Required, TypedDict

from tradsys.serving.brokers import Bar, Fill, Order

Row = dict[str, Any]  # fields of an order, a fill, or a trade (columns of `portfolio.ledger`)
Settings = dict[str, Any]  # of start and swap; the keys depend on the command
Body = Mapping[str, Any]  # of an event: a class of this module, by its kind
NewEvent = tuple[str, Body]  # kind and body, before the journal numbers it
Listener = Callable[[str, Body], None]  # called with kind and body of each event once it is on disk


class SourceBody(TypedDict):
    """`feeds.Source` as JSON values, and the age of the bar when read."""

    by: str
    last_message: str | None
    n_breaks: int
    why: str
    age_seconds: NotRequired[float]


class Bars(TypedDict):
    """Closed bars of one time that reached the bot.

    late: whether they are only booked, without a decision. bars: see `bar_body`. source: None of stored bars.
    """

    time: str
    late: bool
    bars: list[list[Any]]
    source: NotRequired[SourceBody]


class Forecast(TypedDict, total=False):
    """Calibrated probability and raw score of class 1, where the model has them."""

    probability: float
    score: float


class Prediction(TypedDict):
    """Forecasts by symbol."""

    time: str
    rows: dict[str, Forecast]


class DecidedRow(Forecast):
    """The action for one symbol, and what of the prediction is shown.

    action: such as `enter long` or `no signal`.
    """

    action: Required[str]
    regime: str
    audit: float
    side: int


class Decision(TypedDict):
    """What was decided for each symbol, and on which prediction."""

    time: str
    late: bool
    rows: dict[str, DecidedRow]


class OrderEnd(TypedDict):
    """The state of an order: accepted, unknown, canceled, rejected or filled."""

    client_id: str
    status: str
    why: str


class Carry(TypedDict):
    """Cash and position after funding and dividends.

    The position's funding and dividends so far, and its exit order.
    """

    symbol: str
    time: str
    cash: float
    carry: float
    passed: bool
    leaving: str
    part_out: float
    part_value: float


class Split(TypedDict):
    """A split of a held share; ratio: new units per old unit."""

    symbol: str
    ratio: float
    time: str


class Slippage(TypedDict):
    """Entry price over the open of its bar, in basis points, positive for a cost."""

    symbol: str
    time: str
    bps: float
    client_id: str


class WatchRow(TypedDict):
    """A figure of the live model next to that of its run.

    state: inside, OUT or not known. note: why it is not known.
    """

    check: str
    live: str
    reported: str
    state: str
    note: str


class Watch(TypedDict, total=False):
    """Checks of the running bot against its backtest.

    checks: rows of the page. out: why a check is out of its band. resolved: outcomes by moment.
    """

    time: str
    checks: list[WatchRow]
    out: dict[str, str]
    resolved: dict[str, list[tuple[float, int]]]


class Halt(TypedDict):
    """A halt of new entries, which `trade resume` alone lifts.

    rule: of conf/risk, or another reason's name.
    """

    rule: str
    why: str
    time: str


class Foreign(TypedDict):
    """Units held at the exchange that the journal does not know.

    foreign: whether the symbol is therefore not traded.
    """

    symbol: str
    quantity: float
    foreign: bool


class Request(TypedDict):
    """A request of another process: stop, flatten or resume.

    id: of the request in its own table.
    """

    id: int
    what: str


class Note(TypedDict):
    """A remark on one part of the bot (`what`); source: see `feeds.Source`."""

    what: str
    why: str
    source: NotRequired[SourceBody]


class Why(TypedDict):
    """A reason in words."""

    why: str


def _fields(record: Order | Fill) -> Row:
    """The fields as a dict; `asdict` would deep-copy values, which costs more than the step itself."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def order_body(order: Order) -> Row:
    """An order as JSON values."""
    return _fields(order) | {"signal_time": order.signal_time.isoformat()}


def order_from(body: Row) -> Order:
    """The order from the result of `order_body`."""
    known = {k: v for k, v in body.items() if k in Order.__dataclass_fields__}
    return Order(**known | {"signal_time": datetime.fromisoformat(body["signal_time"])})


def fill_body(fill: Fill) -> Row:
    """A fill as JSON values."""
    return _fields(fill) | {"time": fill.time.isoformat()}


def fill_from(body: Row) -> Fill:
    """The fill from the result of `fill_body`."""
    levels = body["levels"]
    return Fill(
        **body | {"time": datetime.fromisoformat(body["time"]), "levels": None if levels is None else tuple(levels)}
    )


def bar_body(bar: Bar) -> list[Any]:
    """A bar as JSON values, in its field order."""
    return [bar.symbol, bar.time.isoformat(), *bar[2:]]


def bar_from(row: list[Any]) -> Bar:
    """The bar from the result of `bar_body`."""
    return Bar(row[0], datetime.fromisoformat(row[1]), *row[2:])
