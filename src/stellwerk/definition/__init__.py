"""Workflow documents: their shape, the expressions in them, and the plan that the engine reads."""
