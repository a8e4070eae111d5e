"""Networks that read whole sequences: DTAGN, PHRNN-MSCNN and 3DCNN-DAP, with their parts."""

from ferbench.methods.sequences.family import FAMILY

__all__ = ["FAMILY"]
