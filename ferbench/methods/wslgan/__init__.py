"""WS-LGAN and its ablations: both stages of Zhang, Su, Wang 2020, each equation where it is used."""

from ferbench.methods.wslgan.family import FAMILY

__all__ = ["FAMILY"]
