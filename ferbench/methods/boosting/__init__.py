"""Boosted deep belief networks: patches of a face, each judged by a network of its own, chosen by boosting."""

from ferbench.methods.boosting.family import FAMILY

__all__ = ["FAMILY"]
