"""What an audit found, for the page about a run: a trust card, and a section for each question."""

from tenfold.reporting.audit.beside import trust_table
from tenfold.reporting.audit.card import ModelCard, model_card
from tenfold.reporting.audit.section import Section, Table
from tenfold.reporting.audit.sections import view_audit

__all__ = ["ModelCard", "Section", "Table", "model_card", "trust_table", "view_audit"]
