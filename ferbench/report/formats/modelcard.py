"""A model card as Hugging Face reads it: metadata with ``model-index`` in front, then a description of the model.

https://huggingface.co/docs/hub/model-cards says what the fields mean. A card is of one model, and its readers put all
results of a ``model-index`` together, so it holds one recipe: its figures are the mean over the recipe's seeds.
"""

import re
from collections import defaultdict
from typing import Any

import numpy as np

from ferbench import __version__, metrics
from ferbench.errors import DataError, UsageError
from ferbench.report.conclusions import DRAWN, UNKNOWN_PEOPLE, beside, over_seeds, reached
from ferbench.report.details import metric_columns
from ferbench.report.formats.text import markdown_table
from ferbench.report.results import Report, Training, named
from ferbench.report.table import Section, Table, limits, listed, percent, table
from ferbench.text import markdown, printable

TASKS = {"image": "image-classification", "sequence": "video-classification"}


def model_card(reports: list[Report], chosen: str = "") -> str:
    """Return the card of the only recipe with whole, held-out trainings.

    chosen : the beginning of an experiment or a run of the recipe, where there are several.
    Raises DataError where there is none, UsageError where there are several.
    """
    recipes = defaultdict[tuple[int, str], list[Training]](list)
    for place, report in enumerate(reports):
        for t in report.trainings:
            if t.comparable:
                recipes[place, t.variant].append(t)
    matches = {key: group for key, group in recipes.items() if any(_begins(t, chosen) for t in group)}
    if not matches:
        raise DataError(
            f"no training{f' that begins with {chosen!r}' if chosen else ''} is complete and known to be "
            "tested on unseen people, and a card is of no other: see `ferbench runs`"
        )
    if len(matches) > 1:
        several = [f"{group[0].experiment} ({group[0].title}, {group[0].protocol})" for group in matches.values()]
        raise UsageError(
            f"a card is of one model, and here are {len(matches)}: name one by --training: {listed(several)}"
        )
    (((place, _), group),) = matches.items()
    return f"---\n{_yaml(_metadata(group))}---\n\n{_body(reports[place], group)}"


def _begins(t: Training, chosen: str) -> bool:
    return any(key.startswith(chosen) for key in (t.experiment, *(fold.run for fold in t.folds)))


def _metadata(group: list[Training]) -> dict[str, Any]:
    first, whole = group[0], reached(group, group[0].level)
    known = {
        "n": first.n,
        "subjects": first.subjects or "unknown",
        "folds": len(first.folds),
        "seeds": [t.seed for t in group],
        "weights_tested": first.weights,
        "held_out": str(first.held_out),
    }
    interval = {
        "interval_95": [round(whole.low, 6), round(whole.high, 6)],
        "interval_over": f"{whole.units} {whole.over}",
    }
    figures = []
    for metric in metrics.METRICS:
        value = np.mean([t.metrics[metric.name] for t in group]) if metric.card else np.nan
        if metric.card and not np.isnan(value):
            args = known | interval if metric.name == "accuracy" and not whole.degenerate else known
            kind, name = metric.card
            figures.append({"type": kind, "name": name, "value": round(float(value), 6), "args": args})
    dataset = {
        "type": first.protocol.partition("@")[0],
        "name": f"{first.protocol}: {first.rule}",
        "config": first.protocol,
        "split": "test",
        "args": {"fold_file": first.split_hash, "data": first.data},
    }
    task = {"type": TASKS[first.level], "name": "Facial expression recognition"}
    return {
        "library_name": "ferbench",
        "pipeline_tag": TASKS[first.level],
        "tags": ["facial-expression-recognition"],
        "metrics": [figure["type"] for figure in figures],
        "model-index": [{"name": group[0].title, "results": [{"task": task, "dataset": dataset, "metrics": figures}]}],
    }


def _yaml(content: Any, indent: str = "") -> str:
    """Return dictionaries and lists as lines of YAML; every text is quoted, so that none is read as another type."""
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
        return '"' + re.sub(r"[^ !#-\[\]-~]", lambda match: f"\\U{ord(match[0]):08x}", printable(value)) + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _body(report: Report, group: list[Training]) -> str:
    first, whole = group[0], reached(group, group[0].level)
    row = next((row for row in report.published if row.method == first.published), None)
    input = "one image" if first.level == "image" else f"a sequence of images ({first.sees})"
    use = [
        f"Research on facial expression recognition: it distinguishes {len(first.classes)} expressions "
        f"({', '.join(first.classes)}) on faces like those of its dataset. Its input is {input}.",
        "An expression is not a feeling. The model is not meant to infer what people feel or think, nor for decisions "
        "about them.",
    ]
    figures = [
        f"Accuracy {percent(whole.mean)} %, {whole.interval}; n = {first.n}; {over_seeds(group)}; weights tested: "
        f"{first.weights}."
    ]
    figures += [DRAWN] if report.synthetic else []
    if len(first.folds) > 1:
        figures.append(
            f"Each of the {len(first.folds)} folds has a separate network. The figure is of all of them together; a "
            "single file of weights was tested on its own fold only."
        )
    figures += [] if report.synthetic else [f"Compared with the published figure: {beside(group, row)}"]
    disjoint = f"no subject is in both training and test set, every {first.level} is tested once"
    protocol = [
        f"{first.protocol}: {first.rule}; {disjoint if first.subjects else UNKNOWN_PEOPLE}. "
        f"Fold file {first.split_hash[:12]}.",
        "The weights were not chosen on the test set. Whether hyperparameters were is not known.",
        "Accuracy is pooled over all folds; its interval treats subjects as clusters where they are known.",
    ]
    people = f" of {first.subjects:,} people" if first.subjects else ""
    data = [
        f"Trained on, first to last: {', '.join(first.trained_on)}.",
        f"Tested on {first.n}{people}; fingerprint of the prepared dataset {first.data[:12]}.",
    ]
    blocks = [
        f"# {markdown(first.title)}\n\nRecognises facial expressions. Trained and tested under "
        f"{markdown(first.protocol)}; written by ferbench {__version__} from the stored predictions."
    ]
    for section in (
        Section("Intended use", use),
        Section("Figures", figures, [_by_seed(report, group), _by_class(group)]),
        Section("Protocol", protocol),
        Section("Data", data),
        Section("Limits, and what is unknown", _limits(group)),
    ):
        blocks.append(f"## {section.title}\n\n" + "\n".join(f"- {markdown(line)}" for line in section.lines))
        blocks += map(markdown_table, section.tables)
    return "\n\n".join(blocks) + "\n"


def _by_seed(report: Report, group: list[Training]) -> Table:
    names = named(report.trainings)
    return table(
        "Each training, percent",
        group,
        ("Training", "text", lambda t: names[t.experiment]),
        ("Accuracy", "percent", lambda t: 100 * t.accuracy),
        ("95 % interval", "percent", lambda t: limits(t.interval, t.level)),
        *metric_columns("percent"),
        ("Device", "text", lambda t: "; ".join(t.devices)),
        ("Precision", "text", lambda t: t.precision),
        ("Experiment", "text", lambda t: t.experiment),
    )


def _by_class(group: list[Training]) -> Table:
    counts = np.sum([t.matrix for t in group], axis=0)
    return table(
        "Recall of each class, percent, over all seeds",
        zip(group[0].classes, metrics.recalls(counts), counts.sum(axis=1), strict=True),
        ("Class", "text", lambda row: row[0]),
        ("Recall", "percent", lambda row: "–" if np.isnan(row[1]) else float(100 * row[1])),
        (f"{group[0].level.capitalize()}s", "count", lambda row: int(row[2]) // len(group)),
    )


def _limits(group: list[Training]) -> list[str]:
    first = group[0]
    name, share, tested = min((t.metrics["worst_class"] for t in group), key=lambda row: row[1])
    where = " in its worst seed" if len(group) > 1 else ""
    lines = [
        "Its accuracy on groups of people (age, sex, origin) is unknown: the labels that ferbench reads do not state "
        "them.",
        "Its accuracy on other datasets, cameras or face crops is unknown unless it is stated above.",
        f"Its weakest class is {name}: {percent(share)} % of {tested:,} are correct{where}.",
    ]
    people = [t.metrics["worst_subject"] for t in group if t.subjects]
    if people:
        _, share, tested = min(people, key=lambda person: person[1])
        lines.append(f"People differ: for the most difficult person {percent(share)} % of {tested:,} are correct.")
    if len(group) == 1:
        lines.append("How much another seed would change is unknown: there is one.")
    error = float(np.mean([t.metrics["ece"] for t in group]))
    lines.append(
        "Its scores are no probabilities."
        if first.uncalibrated
        else f"The expected calibration error (ECE) of its probabilities is {percent(error)} %."
    )
    lines += [f"Differs from the original method: {sentence}" for sentence in first.differs]
    lines += [f"Changed from the preset: {change}" for change in first.changed]
    lines += [f"Note: {note}" for note in dict.fromkeys(note for t in group for note in t.notes)]
    return [*lines, "No licence is stated. Choose one that the terms of the data permit when you publish the weights."]
