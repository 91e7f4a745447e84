"""Plurals of counted nouns in lines, tables and pages."""

IRREGULAR = {"series": "series", "basis": "bases", "child": "children", "is": "are", "was": "were", "has": "have"}


def plural(value: float, noun: str) -> str:
    """The noun in singular or plural: `run`, `runs`, `entries`.

    Of several words the last changes.
    """
    first, space, last = noun.rpartition(" ")
    if value == 1:
        return noun
    if last in IRREGULAR:
        more = IRREGULAR[last]
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        more = f"{last[:-1]}ies"
    else:
        more = f"{last}es" if last.endswith(("s", "x", "z", "ch", "sh")) else f"{last}s"
    return f"{first}{space}{more}"


def counted(value: float, noun: str) -> str:
    """`1 trade`, `2 trades`, `12,345 entries`."""
    return f"{value:,.0f} {plural(value, noun)}"
