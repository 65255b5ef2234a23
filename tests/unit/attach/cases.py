"""The table of all cases, in the order in which docs/models.md shows it."""

# ruff: noqa: I001
from unit.attach.case import CASES, Case
from unit.attach import models, training, changes, surroundings

__all__ = ["CASES", "Case", "changes", "models", "surroundings", "training"]
