"""Checks of the inputs and outputs of a model against its card. A contradiction is an error."""

import json
from ast import literal_eval
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ferbench.errors import DataError
from ferbench.labels import emotion
from ferbench.methods.foreign import Card, Input
from ferbench.text import printable

_NAMES_OF_LABELS = ("labels", "classes", "class_names", "names", "id2label")  # as exporters call them


def check_input(wanted: Input, expected: tuple[int, ...], shape: Sequence[Any], kind: np.dtype, title: str) -> None:
    """Compare the input that a file declares with the faces that its card describes.

    expected : shape of one face. shape : of a batch in the file; an entry that is no positive number means any length.
    Raises DataError if they differ.
    """
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
    agree = len(sides) == 1 + len(expected) and all(
        side in (None, length) for side, length in zip(sides[1:], expected, strict=False)
    )
    if not agree:
        named = ", ".join("any" if side is None else str(side) for side in sides)
        raise DataError(
            f"{title} takes faces [{named}], and its card describes [any, {', '.join(map(str, expected))}]: "
            "correct size, colour or layout under [input]"
        )
    if kind.kind not in "iu":
        return
    if kind == np.int8:
        raise DataError(
            f"{title} takes faces of type int8, which cannot hold grey levels up to 255: export it otherwise"
        )
    if wanted.scale != "0..255" or any(wanted.mean) or set(wanted.deviation) != {1.0}:
        raise DataError(
            f'{title} takes whole numbers ({kind}), and its card scales faces to fractions: write scale = "0..255" '
            "under [input], without mean and deviation"
        )


def check_metadata(card: Card, metadata: Mapping[str, str], title: str) -> None:
    """Compare the metadata of a file with its card: names of classes in their order, and the entry "preprocessing" of
    files that ferbench exported. Raises DataError if they differ."""
    for key, text in metadata.items():
        named = _emotions(_listed(text)) if key.lower() in _NAMES_OF_LABELS else None
        if named and named != card.output.labels:
            raise DataError(_contradicts(f"the metadata of {title} say", named, card.output.labels))
    try:
        images = json.loads(metadata.get("preprocessing", "{}"))
        taken = {"scale": "..".join(map(str, images["range"])), "colour": images["colour"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for field, value in taken.items():
        if value != (on_card := getattr(card.input, field)):
            raise DataError(
                f"the metadata of {title} say {field} = {value!r}, and its card says {on_card!r}: correct [input]"
            )


def labels_of(model: Any, labels: tuple[str, ...], title: str) -> tuple[tuple[str, ...], str]:
    """Return the emotion of each score of an estimator, and a note if these are not all labels of the card.

    Its attribute ``classes_`` has names of emotions, which must be the labels of the card in their order, or numbers,
    which are indices of the labels from 0. Raises DataError if they contradict the card.
    """
    try:
        classes = [str(name) for name in np.asarray(model.classes_).ravel()]
    except (AttributeError, ValueError):  # no such attribute, not fitted, or several lists
        return labels, ""
    if named := _emotions(classes):
        if named != labels:
            raise DataError(_contradicts(f"classes_ of {title} says", named, labels))
        return labels, ""
    try:
        numbers = [int(float(name)) for name in classes]
    except ValueError:
        return labels, ""
    if len(numbers) == len(labels) and numbers == sorted(numbers):
        return labels, ""
    if any(not 0 <= number < len(labels) for number in numbers):
        raise DataError(
            f"classes_ of {title} is {', '.join(classes)}, and its card names {len(labels)} labels: name one label for "
            "each class under [output], in this order"
        )
    taken = tuple(labels[number] for number in numbers)
    return taken, f"the scores stand for {', '.join(taken)}: classes_ counts the labels of the card from 0"


def choose(outputs: Mapping[str, Any], count: int, width: int, wanted: str, title: str) -> str:
    """Return the name of the output with the scores: ``wanted`` by the card, the only output, or the only one with
    ``width`` floating-point numbers for each of ``count`` faces.

    Raises DataError if no output or several have this shape.
    """
    if wanted:
        if wanted not in outputs:
            raise DataError(f"{title} has no output {wanted!r}, which its card names: it has {', '.join(outputs)}")
        return wanted
    if len(outputs) == 1:
        return next(iter(outputs))
    fitting = [
        name
        for name, values in outputs.items()
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and _shape(values) == (count, width)
    ]
    if len(fitting) == 1:
        return fitting[0]
    how = f"several outputs with {width} scores a face" if fitting else f"no output with {width} scores a face"
    raise DataError(
        f"{title} has {how} among {', '.join(fitting or outputs)}: name the right one in its card, as in "
        f'[output] name = "{(fitting or list(outputs))[-1]}"'
    )


def table(returned: Any, count: int, width: int, title: str) -> np.ndarray:
    """Return scores float64 [count,width]; other axes of length 1 are dropped.

    returned : the return value of a model. Raises DataError if it does not have this form.
    """

    def refused(what: str) -> DataError:
        return DataError(f"{title} must return {count} rows of {width} numbers, one for each face and label: {what}")

    if returned is None:
        raise refused("it returned None")
    try:
        raw = np.asarray(returned.detach().cpu() if hasattr(returned, "detach") else returned)
    except (ValueError, TypeError, RuntimeError):
        raise refused("its rows have different lengths") from None
    if raw.dtype.kind not in "fiub":
        what = printable(str(raw.flat[0] if raw.size else raw))[:40]
        raise refused(f"it returned {what!r}, which is no number")
    if raw.shape == (width,) and count == 1:
        raw = raw[None]
    if not raw.ndim or len(raw) != count:
        raise refused(f"the number of rows was {len(raw) if raw.ndim else 0}")
    shape = _shape(raw)
    if len(shape) != 2:
        raise refused(f"it returned the shape {list(raw.shape)}")
    if shape[1] != width:
        raise DataError(f"{title} gives {shape[1]} scores a face, and its card names {width} labels")
    if not np.isfinite(raw).all():
        raise DataError(f"{title} gives scores that are no finite numbers")
    return raw.reshape(shape).astype(np.float64)


def _shape(values: np.ndarray) -> tuple[int, ...]:
    """The shape without axes of length 1 after the first; [N,1] for a single score of each face."""
    if values.ndim < 2:
        return values.shape
    return (len(values), *([side for side in values.shape[1:] if side != 1] or [1]))


def _contradicts(source: str, named: tuple[str, ...], labels: tuple[str, ...]) -> str:
    return (
        f"{source} that the scores stand for {', '.join(name or 'none' for name in named)}, and its card says "
        f"{', '.join(name or 'none' for name in labels) or 'nothing'}: correct labels under [output]"
    )


def _listed(text: str) -> list[Any]:
    """A list in JSON or Python, or the values of a table by number; empty for anything else."""
    for read in (json.loads, literal_eval):
        try:
            value = read(text)
            return list(value) if isinstance(value, list | tuple) else [value[key] for key in sorted(value, key=int)]
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return []


def _emotions(names: Sequence[Any]) -> tuple[str, ...] | None:
    """Standard names of emotions, empty for other names; None if no name is an emotion."""
    emotions = []
    for name in names:
        try:
            emotions.append(emotion(name) if isinstance(name, str) else "")
        except DataError:
            emotions.append("")
    return tuple(emotions) if any(emotions) else None
