"""Everything that one should know before trusting a classifier, part by part.

    from tenfold.audit import audit

Each part reads a finished run and writes `audit/<part>.json`, with its pictures in
`audit/<part>.npz`; a part whose weights, data and options have not changed is not computed again.
"""

from collections.abc import Iterable
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.own_parts import is_own
from tenfold.registry import SHIPPED

__all__ = ["PARTS", "AuditOptions", "audit", "require_parts"]

PARTS = tuple(SHIPPED["question"])
"""In the order of the page, which those of one's own follow."""


def require_parts(wanted: Iterable[str]) -> None:
    """Raise TenfoldError for a name that is no part's, and not in the form of one's own."""
    if unknown := [part for part in wanted if part not in PARTS and not is_own(part)]:
        raise TenfoldError(
            f"There is no part {unknown[0]!r}; there are: {', '.join(PARTS)}, and those of your "
            "own, such as my.py:question."
        )


def __getattr__(name: str) -> Any:
    """Import torch and all that the parts need only where one is to be computed."""
    if name == "audit":
        from tenfold.audit.auditing import audit

        return audit
    if name == "AuditOptions":
        from tenfold.audit.options import AuditOptions

        return AuditOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
