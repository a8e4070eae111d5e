"""ferbench: benchmarks for facial expression recognition whose numbers can be trusted."""

import os

__version__ = "0.1.0"
DEFAULT_METHOD = "wslgan"  # that is meant where none is named

# GNU OpenMP's threads wait for each other in a loop, by default for about a millisecond, in which another that waits
# for a core cannot run. Beside two busy processes on two cores, a training of a minute would have taken two hours. A
# hundredth of the loops costs idle cores next to nothing, and changes no value. Read when torch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
