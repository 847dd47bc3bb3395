"""Everything that one should know before trusting a classifier, part by part.

    from tenfold.audit import audit

Each part reads a finished run and writes `audit/<part>.json`, with its pictures in
`audit/<part>.npz`; a part whose weights, data and options have not changed is not computed again.
"""

from typing import Any

from tenfold.registry import SHIPPED

__all__ = ["PARTS", "AuditOptions", "audit"]

PARTS = tuple(SHIPPED["question"])
"""In the order of the page, which those of one's own follow."""


def __getattr__(name: str) -> Any:
    """Import torch and all that the parts need only where one is to be computed."""
    if name == "audit":
        from tenfold.audit.auditing import audit

        return audit
    if name == "AuditOptions":
        from tenfold.audit.options import AuditOptions

        return AuditOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
