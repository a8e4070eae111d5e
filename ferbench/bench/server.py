"""The server scenario: queries arrive at random, the server takes all that wait, up to a batch.

Service times are measured; the queue over them is simulated, so that a rate can be tried with enough queries
for a 99th percentile without waiting for them. Arrivals are Poisson, as in MLPerf's Server scenario.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

QUERIES = 10_000  # a hundred lie beyond the 99th percentile
_HALVINGS = 12  # the rate is found to one part in four thousand of the capacity


@dataclass(frozen=True)
class Served:
    """The largest rate whose 99th percentile stays below the bound, and the latencies at it, in seconds."""

    rate: float
    latencies: np.ndarray


def largest_rate(service: Mapping[int, Sequence[float]], bound: float, seed: int = 0) -> Served:
    """Search the largest rate of queries per second whose p99 latency is at most ``bound`` seconds.

    service : batch size → measured seconds of a call; the largest is the largest batch that is formed.
    A server that cannot meet the bound at any rate has rate 0 and the latencies of single calls.
    """
    low, high = 0.0, max(size / float(np.median(times)) for size, times in service.items())
    kept = np.asarray(service[min(service)], dtype=np.float64)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = simulate(service, middle, seed)
        if np.percentile(found, 99) <= bound:
            low, kept = middle, found
        else:
            high = middle
    return Served(low, kept)


def simulate(service: Mapping[int, Sequence[float]], rate: float, seed: int = 0) -> np.ndarray:
    """Return the latencies of queries that arrive at ``rate`` per second, waiting included, in seconds.

    A batch takes as long as a measured call, drawn at random, of the next size that was measured.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, QUERIES))
    sizes = np.array(sorted(service))
    found = np.empty(QUERIES)
    free, first = 0.0, 0
    while first < QUERIES:
        start = max(free, arrivals[first])
        waiting = int(np.searchsorted(arrivals, start, side="right")) - first
        count = min(max(waiting, 1), int(sizes[-1]))
        times = service[int(sizes[np.searchsorted(sizes, count)])]
        free = start + times[int(rng.integers(len(times)))]
        found[first : first + count] = free - arrivals[first : first + count]
        first += count
    return found
