"""The test set of a protocol: rows of a prepared dataset."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.errors import DataError
from ferbench.execution.views import sample_set
from ferbench.files import data_home
from ferbench.methods.interface import SampleSet
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.protocol import Protocol


@dataclass(frozen=True)
class TestSet:
    """Rows of a prepared dataset that a protocol tests. split : hash of the fold file, or empty."""

    protocol: Protocol
    faces: Faces
    rows: np.ndarray
    split: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: str, home: Path | None) -> "TestSet":
        """All that a protocol tests. A dataset with a test set alone is enough, and people need not be known.

        Raises what ``protocols.load`` and ``faces.load`` raise, DataError where nothing is tested.
        """
        protocol, home = protocols.load(dataset), data_home(home)
        synthetic.ensure(protocol.dataset, home)
        faces = prepared_sets.load(protocol.dataset, home)
        try:
            folds = splits.make(protocol, faces)
        except DataError as error:
            rows, note = splits.tested(protocol, faces)
            return cls(protocol, faces, rows, "", (note or str(error), *splits.alignment(faces, rows)))
        rows = np.sort(np.concatenate([fold.test for fold in folds.folds]))
        return cls(protocol, faces, rows, folds.hash, tuple(splits.alignment(faces, rows)))

    def with_rows(self, rows: np.ndarray) -> "TestSet":
        """The same with other rows of the prepared dataset."""
        return replace(self, rows=rows)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of ``samples.csv``."""
        return self.faces.samples.iloc[self.rows]

    def samples(self) -> SampleSet:
        """The samples as a model gets to see them."""
        return sample_set(self.protocol, self.faces, self.rows)
