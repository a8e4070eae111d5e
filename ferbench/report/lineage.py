"""What one training has in common with another: the identities of all its stages, chance left out."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ferbench.files import canonical_json, sha256_of
from ferbench.runs.record import FORERUNNERS, TABLES, Identity, Record

Lineage = dict[str, Any]


def lineage(identity: Identity, records: Mapping[str, Record]) -> Lineage:
    """Return an identity without fold and seed, its parents' lineages in the place of their keys.

    Trainings of equal lineage differ in nothing but chance. A parent that is no longer stored stays a key.
    """
    content = identity.model_dump(exclude={"fold", "seed", "parents"})
    for kind, key in identity.parents.items():
        content[kind] = lineage(records[key].identity, records) if key in records else {"run": key}
    return content


def variant(made: Lineage) -> str:
    """Return 8 hexadecimal digits that trainings of equal lineage share."""
    return sha256_of(canonical_json(made).encode())[:8]


def varying(trainings: list[tuple[Identity, Lineage]]) -> dict[str, list[str]]:
    """Return what differs between trainings: the field's name and its values.

    Method, preset and seed are compared over all; any other field within one method and preset, which
    imply it otherwise. Of a stage that only some have, no more is said than that.
    """
    found: dict[str, set[str]] = {}
    for name in ("method", "preset", "seed"):
        found[name] = {str(getattr(identity, name)) or "none" for identity, _ in trainings}
    peers: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for identity, made in trainings:
        peers[identity.method, identity.preset].append(dict(_flat(made)))
    for group in peers.values():
        for path in sorted(set().union(*group)):
            values = {flat.get(path, "none") for flat in group}
            above = path.rpartition(".")[0]
            if len(values) > 1 and all(above in flat or not above for flat in group):
                found[path] = found.get(path, set()) | values
    return {name: sorted(values, key=_numbers_first) for name, values in found.items() if len(values) > 1}


def changes(before: Lineage, after: Lineage) -> dict[str, tuple[str, str]]:
    """Return the fields of the recipe in which two trainings differ, named as ``--set`` names them, with both values;
    ``finetune.data`` and the like are fingerprints of prepared sets.

    What a field decides in several stages is told once. A field that only one of the two has is "off" in the other: a
    schedule's identity leaves out what is beyond the paper and not in use.
    """
    flat = dict(_flat(before)), dict(_flat(after))
    found = {}
    for path in flat[0].keys() | flat[1].keys():
        stage, recipe, field = path.rpartition("recipe.")
        values = flat[0].get(path, "off"), flat[1].get(path, "off")
        if not recipe and path.rpartition(".")[2] == "data":
            stage, field = path.removesuffix("data"), "stage.data"
        elif not recipe:
            continue
        if values[0] != values[1]:
            table, dot, rest = field.partition(".")
            field = f"{TABLES.get(table, table)}{dot}{rest}"
            part = stage.rstrip(".").rpartition(".")[2] or "finetune"  # the kind of the training that it decides
            found[field.replace("stage.", f"{part}.")] = values
    return dict(sorted(found.items()))


def in_words(changed: Mapping[str, tuple[str, str]]) -> str:
    """Return changes as a report shows them: each field with its value before and after."""
    return "; ".join(f"{name} {before} → {after}" for name, (before, after) in changed.items())


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give every field's path and value. Fine-tuning starts from the AMG that pre-training had: told once. Whom
    pre-training had as teachers, or went on from, is told by its own recipe."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield prefix + name, "used"
            if not (prefix and (name == "attention" or name.startswith(FORERUNNERS))):
                yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ("off", "on")[value] if isinstance(value, bool) else str(value)
            yield prefix + name, text[:12] if name in ("data", "split") else text


def _numbers_first(text: str) -> tuple[float, str]:
    return (float(text) if text.replace(".", "", 1).isdigit() else float("inf"), text)
