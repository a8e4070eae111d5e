"""Static convolutional networks: one trunk pre-trained with softmax, and losses that shape its features."""

from ferbench.methods.cnn.family import FAMILY

__all__ = ["FAMILY"]
