"""What an audit found, for the page about a run: a trust card, and a section for each question."""

from tenfold.reporting.audit.beside import compare_trust
from tenfold.reporting.audit.card import ModelCard, model_card
from tenfold.reporting.audit.section import Section
from tenfold.reporting.audit.sections import view_audit

__all__ = ["ModelCard", "Section", "compare_trust", "model_card", "view_audit"]
