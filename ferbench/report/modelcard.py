"""A model card as Hugging Face reads it: metadata with ``model-index`` in front, then what a stranger must know.

https://huggingface.co/docs/hub/model-cards says what the fields mean. A card is of one model, and its readers put all
results of a ``model-index`` together, so it holds one recipe: its figures are the mean over the recipe's seeds.
"""

import re
from collections import defaultdict
from typing import Any

import numpy as np

from ferbench import __version__, metrics
from ferbench.errors import DataError, UsageError
from ferbench.report.cells import SELECTIONS, Grid, listed, named, percent, reach
from ferbench.report.comparison import mean
from ferbench.report.conclusions import Reach, beside, over_seeds, reached, titled
from ferbench.report.model import Report, Training
from ferbench.report.render import markdown_grid
from ferbench.text import markdown, printable

TASKS = {"image": "image-classification", "sequence": "video-classification"}


def model_card(reports: list[Report], chosen: str = "") -> str:
    """Return the card of the one recipe that whole, held-out trainings are of.

    chosen : how the experiment or a run of its begins, where there are several recipes.
    Raises DataError where there is none, UsageError where there are several.
    """
    recipes = defaultdict[tuple[int, str], list[Training]](list)
    for place, report in enumerate(reports):
        for t in report.trainings:
            if t.comparable:
                recipes[place, t.variant].append(t)
    found = {key: group for key, group in recipes.items() if any(_begins(t, chosen) for t in group)}
    if not found:
        raise DataError(
            f"no training{f' that begins with {chosen!r}' if chosen else ''} is complete and known to be "
            "tested on unseen people, and a card is of no other: see `ferbench runs`"
        )
    if len(found) > 1:
        several = [f"{group[0].experiment} ({titled(group)}, {group[0].protocol})" for group in found.values()]
        raise UsageError(
            f"a card is of one model, and here are {len(found)}: name one by --training: {listed(several)}"
        )
    (((place, _), group),) = found.items()
    return f"---\n{_yaml(_metadata(group))}---\n\n{_body(reports[place], group)}"


def _begins(t: Training, chosen: str) -> bool:
    return any(key.startswith(chosen) for key in (t.experiment, *(fold.run for fold in t.folds)))


def _metadata(group: list[Training]) -> dict[str, Any]:
    first, whole = group[0], reached(group, group[0].level)
    told = {
        "n": first.n,
        "subjects": first.subjects or "unknown",
        "folds": len(first.folds),
        "seeds": [t.seed for t in group],
        "weights_tested": SELECTIONS.get(first.selection, first.selection),
        "held_out": str(first.held_out),
    }
    interval = (
        {}
        if whole.degenerate
        else {
            "interval_95": [round(whole.low, 6), round(whole.high, 6)],
            "interval_over": f"{whole.units} {whole.over}",
        }
    )
    return {
        "library_name": "ferbench",
        "pipeline_tag": TASKS[first.level],
        "tags": ["facial-expression-recognition"],
        "metrics": ["accuracy", "recall", "f1"],
        "model-index": [
            {
                "name": titled(group),
                "results": [
                    {
                        "task": {"type": TASKS[first.level], "name": "Facial expression recognition"},
                        "dataset": {
                            "type": first.protocol.partition("@")[0],
                            "name": f"{first.protocol}: {first.rule}",
                            "config": first.protocol,
                            "split": "test",
                            "args": {"fold_file": first.split_hash, "data": first.data},
                        },
                        "metrics": [
                            {
                                "type": "accuracy",
                                "name": "Accuracy, pooled over all folds",
                                "value": round(whole.mean, 6),
                                "args": told | interval,
                            },
                            {
                                "type": "recall",
                                "name": "Balanced accuracy (mean recall of all classes)",
                                "value": round(mean(t.balanced_accuracy for t in group), 6),
                                "args": told,
                            },
                            {
                                "type": "f1",
                                "name": "Macro F1",
                                "value": round(mean(t.macro_f1 for t in group), 6),
                                "args": told,
                            },
                        ],
                    }
                ],
            }
        ],
    }


def _yaml(content: Any, indent: str = "") -> str:
    """Return dictionaries and lists as lines of YAML; every text is quoted, so that none is taken for anything else."""
    lines = []
    for name, value in content.items() if isinstance(content, dict) else ((None, value) for value in content):
        head = f"{indent}-" if name is None else f"{indent}{name}:"
        if isinstance(value, dict | list) and value:
            inner = _yaml(value, indent + "  ")
            # The first line of what an item of a list holds stands beside its dash.
            lines.append(f"{head} {inner[len(indent) + 2 :]}" if name is None else f"{head}\n{inner}")
        else:
            lines.append(f"{head} {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return '"' + re.sub(r"[^ !#-\[\]-~]", lambda found: f"\\U{ord(found[0]):08x}", printable(value)) + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _body(report: Report, group: list[Training]) -> str:
    first, whole = group[0], reached(group, group[0].level)
    row = next((row for row in report.published if row.method == first.published), None)
    compared = [] if report.drawn else [f"Compared with the published figure: {beside(group, row)}"]
    sections: list[tuple[str, list[str], list[Grid]]] = [
        ("Intended use", _use(first), []),
        ("Figures", [*_figures(report, group, whole), *compared], [_by_seed(report, group), _by_class(group)]),
        ("Protocol", _protocol(first), []),
        ("Data", _data(first), []),
        ("Limits, and what is unknown", _limits(report, group), []),
    ]
    parts = [
        f"# {markdown(titled(group))}\n\nRecognises facial expressions. Trained and tested under "
        f"{markdown(first.protocol)}; written by ferbench {__version__} from the stored predictions."
    ]
    for title, lines, tables in sections:
        parts.append(f"## {title}\n\n" + "\n".join(f"- {markdown(line)}" for line in lines))
        parts += [markdown_grid(grid) for grid in tables]
    return "\n\n".join(parts) + "\n"


def _use(first: Training) -> list[str]:
    return [
        f"Research on facial expression recognition: it tells {len(first.classes)} expressions apart "
        f"({', '.join(first.classes)}) on faces like those of its dataset. Its input is {_reads(first)}.",
        "An expression is not a feeling. The model is not meant to infer what people feel or think, nor for decisions "
        "about them.",
    ]


def _reads(first: Training) -> str:
    return "one image" if first.level == "image" else f"of each sequence what is told as {first.sees!r}"


def _figures(report: Report, group: list[Training], whole: Reach) -> list[str]:
    first = group[0]
    found = [
        f"Accuracy {percent(whole.mean)} %, {whole.interval}; n = {first.n}; {over_seeds(group)}; weights tested: "
        f"{SELECTIONS.get(first.selection, first.selection)}."
    ]
    if report.drawn:
        found.append(
            "The faces are drawn by ferbench: this says nothing about how well people's expressions are "
            "recognised, and no published figure is comparable."
        )
    if len(first.folds) > 1:
        found.append(
            f"Each of the {len(first.folds)} folds has a network of its own, and the figure is of all of them "
            "together: a single file of weights was tested on its own fold only."
        )
    return found


def _by_seed(report: Report, group: list[Training]) -> Grid:
    names = named(report.trainings)
    rows = [
        [
            names[t.experiment],
            percent(t.accuracy),
            reach(t.interval, t.level),
            percent(t.balanced_accuracy),
            percent(t.macro_f1),
            "; ".join(t.devices),
            t.precision,
            t.experiment,
        ]
        for t in group
    ]
    return (
        "Each training, percent",
        ["Training", "Accuracy", "95 % interval", "Balanced", "Macro F1", "Device", "Precision", "Experiment"],
        rows,
    )


def _by_class(group: list[Training]) -> Grid:
    counts = np.sum([t.matrix for t in group], axis=0)
    rows = [
        [name, "–" if np.isnan(share) else percent(share), f"{tested // len(group):,}"]
        for name, share, tested in zip(group[0].classes, metrics.recalls(counts), counts.sum(axis=1), strict=True)
    ]
    return (
        "Recall of each class, percent, over all seeds",
        ["Class", "Recall", f"{group[0].level.capitalize()}s"],
        rows,
    )


def _protocol(first: Training) -> list[str]:
    people = (
        f"no subject is in both training and test set, every {first.level} is tested once"
        if first.subjects
        else "subjects are unknown, so the same people may be in training and test sets"
    )
    return [
        f"{first.protocol}: {first.rule}; {people}. Fold file {first.split_hash[:12]}.",
        "The test set did not choose the weights. Whether it influenced the choice of hyperparameters is not known.",
        "Accuracy is pooled over all folds; its interval treats subjects as clusters where they are known.",
    ]


def _data(first: Training) -> list[str]:
    people = f" of {first.subjects:,} people" if first.subjects else ""
    return [
        f"Learned from, first to last: {', '.join(first.trained_on)}.",
        f"Tested on {first.n}{people}; fingerprint of the prepared dataset {first.data[:12]}.",
    ]


def _limits(report: Report, group: list[Training]) -> list[str]:
    first = group[0]
    found = [
        "How it does on groups of people (age, sex, origin) is unknown: the labels that ferbench reads do not state "
        "them.",
        "How it does on other datasets, cameras or face crops is unknown unless it is stated above.",
    ]
    name, share, tested = min((t.worst_class for t in group), key=lambda worst: worst[1])
    where = " in the seed that does worst by it" if len(group) > 1 else ""
    found.append(f"Its weakest class is {name}: {percent(share)} % of {tested:,} are right{where}.")
    worst = min((t.worst_subject for t in group if t.worst_subject[2]), key=lambda worst: worst[1], default=None)
    if worst:
        found.append(f"People differ: of the one it recognises worst {percent(worst[1])} % of {worst[2]:,} are right.")
    if len(group) == 1:
        found.append("What another seed would give is unknown: there is one.")
    found.append(
        "Its scores are no probabilities."
        if first.uncalibrated
        else "Whether its probabilities are calibrated is not stated here."
    )
    found += [f"Not as in the original: {one}" for one in first.differs]
    found += [f"Changed from the preset: {one}" for one in first.changed]
    found += [f"Note: {note}" for note in dict.fromkeys(note for t in group for note in t.notes)]
    found.append("No licence is stated: whoever publishes the weights states one that the data's own terms allow.")
    return found
