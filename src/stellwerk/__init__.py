"""Stellwerk: a workflow engine that lives in PostgreSQL."""

__version__ = "0.1.0"
