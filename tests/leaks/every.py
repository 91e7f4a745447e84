"""Every leak that the audit must name; importing a module of this folder registers what it plants."""

from tests.leaks import columns, data, models  # noqa: F401
from tests.leaks.registry import LEAKS

__all__ = ["LEAKS"]
