"""Features made by hand and classical classifiers: scikit-learn pipelines, of images and of sequences."""

from ferbench.methods.features.family import FAMILY

__all__ = ["FAMILY"]
