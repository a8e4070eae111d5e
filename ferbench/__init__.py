"""ferbench: benchmarks for facial expression recognition whose numbers can be trusted."""

__version__ = "0.1.0"
DEFAULT_METHOD = "wslgan"  # that is meant where none is named
