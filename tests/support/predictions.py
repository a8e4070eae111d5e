"""Predictions for tests of statistics."""

import numpy as np
import pandas as pd


def frame(hits: list[int], subjects: list[str]) -> pd.DataFrame:
    rows = [
        {"id": f"i{n:03d}", "subject": who, "truth": "anger", "prediction": "anger" if hit else "fear"}
        for n, (hit, who) in enumerate(zip(hits, subjects, strict=True))
    ]
    return pd.DataFrame(rows)


def reseeded(rng: np.random.Generator, seeds: int, subjects: int = 60, each: int = 8) -> list[pd.DataFrame]:
    """Predictions of one method by several seeds: some people are hard, some images are, and luck decides the rest."""
    ease = rng.normal(2.5, 1.5, subjects)[:, None] + rng.normal(0, 1, (subjects, each))
    names = [f"S{s:03d}" for s in range(subjects) for _ in range(each)]
    # Luck has a part that all images of a person share: what one training gets wrong of a face, it gets wrong often.
    luck = rng.normal(0, 0.7, (seeds, subjects, 1)) + rng.logistic(0, 0.7, (seeds, subjects, each))
    return [frame(list((ease + one > 0).astype(int).ravel()), names) for one in luck]
