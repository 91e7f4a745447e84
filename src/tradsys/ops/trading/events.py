"""Bodies of a bot's journaled events, as JSON values; `State` is made of them alone. Times are ISO text, UTC.

kind        body
start       Start       settings of a bot, journaled at every start
swap        Swap        a newer bundle and its settings
bars        Bars        closed bars of one moment
prediction  Prediction  forecasts of one moment
decision    Decision    what was decided by symbol
intent      Any         an order before it is sent, `order_body`
order       OrderEnd    what became of it
fill        Any         an execution, `fill_body`
carry       Carry       what a position paid and received in a bar
split       Split       new units for old ones
slippage    Slippage    an entry's price beside its bar's open
watch       Watch       the model beside its run
halt        Halt        new entries are stopped
foreign     Foreign     a position that is not the bot's
request     Request     what a person asked for
note        Note        what happened, in words
resume, stop            Why
"""

from datetime import datetime
from typing import Any, NotRequired, TypedDict

from tradsys.serving.brokers import Bar, Fill, Order

Row = dict[str, Any]  # field by field: of an order, a fill, or a trade as `portfolio.ledger` has its columns
Settings = dict[str, Any]  # of start and swap: each command has keys of its own


class Bars(TypedDict):
    """late: whether they are booked and not traded. bars: as `bar_body`. source: how bars are awaited."""

    time: str
    late: bool
    bars: list[list[Any]]
    source: NotRequired[dict[str, Any]]


class Forecast(TypedDict, total=False):
    """Calibrated probability and raw score of class 1, as far as the model gives them."""

    probability: float
    score: float


class Prediction(TypedDict):
    """Forecasts by symbol."""

    time: str
    rows: dict[str, Forecast]


class Decision(TypedDict):
    """By symbol: `action`, such as `enter long` or `no signal`, and what of the prediction is shown."""

    time: str
    late: bool
    rows: dict[str, dict[str, Any]]


class OrderEnd(TypedDict):
    """status: accepted, unknown, canceled, rejected or filled."""

    client_id: str
    status: str
    why: str


class Carry(TypedDict):
    """Cash after funding and dividends, what the position carried so far, and its exit under way."""

    symbol: str
    time: str
    cash: float
    carry: float
    passed: bool
    leaving: str
    part_out: float
    part_value: float


class Split(TypedDict):
    """ratio: new units for one old."""

    symbol: str
    ratio: float
    time: str


class Slippage(TypedDict):
    """Entry price over the open of its bar, in basis points, positive where it cost."""

    symbol: str
    time: str
    bps: float
    client_id: str


class Watch(TypedDict, total=False):
    """checks: rows of the page. out: why a check is out of its band. resolved: outcomes by moment."""

    time: str
    checks: list[dict[str, Any]]
    out: dict[str, str]
    resolved: dict[str, list[tuple[float, int]]]


class Halt(TypedDict):
    """rule: of conf/risk, or another reason's name; lifted by `trade resume` alone."""

    rule: str
    why: str
    time: str


class Foreign(TypedDict):
    """quantity: at the exchange and not in the journal. foreign: whether the symbol is left alone for it."""

    symbol: str
    quantity: float
    foreign: bool


class Request(TypedDict):
    """id: of the request in its own table. what: stop, flatten or resume."""

    id: int
    what: str


class Note(TypedDict):
    """what: the part that it is about. source: how bars are awaited from now on."""

    what: str
    why: str
    source: NotRequired[dict[str, Any]]


class Why(TypedDict):
    """A reason in words."""

    why: str


def _fields(record: Order | Fill) -> Row:
    """Field by field; `asdict` would copy each value deeply, which costs more than the step it records."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def order_body(order: Order) -> Row:
    """An order as JSON values."""
    return _fields(order) | {"signal_time": order.signal_time.isoformat()}


def order_from(body: Row) -> Order:
    """The order that `order_body` described."""
    known = {k: v for k, v in body.items() if k in Order.__dataclass_fields__}
    return Order(**known | {"signal_time": datetime.fromisoformat(body["signal_time"])})


def fill_body(fill: Fill) -> Row:
    """A fill as JSON values."""
    return _fields(fill) | {"time": fill.time.isoformat()}


def fill_from(body: Row) -> Fill:
    """The fill that `fill_body` described."""
    levels = body["levels"]
    return Fill(
        **body | {"time": datetime.fromisoformat(body["time"]), "levels": None if levels is None else tuple(levels)}
    )


def bar_body(bar: Bar) -> list[Any]:
    """A bar as JSON values, in its field order."""
    return [bar.symbol, bar.time.isoformat(), *bar[2:]]


def bar_from(row: list[Any]) -> Bar:
    """The bar that `bar_body` described."""
    return Bar(row[0], datetime.fromisoformat(row[1]), *row[2:])
