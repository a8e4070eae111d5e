"""Anybody's model: an ONNX or Keras file, a callable or an estimator, described by a card."""

from ferbench.methods.foreign.family import FAMILY

__all__ = ["FAMILY"]
