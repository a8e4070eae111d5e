"""Methods that generate each person's neutral face: DeRL and GCNet."""

from ferbench.methods.generative.family import FAMILY

__all__ = ["FAMILY"]
