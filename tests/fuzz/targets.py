"""What is fuzzed: for each reader its good files, how they are damaged, and the call that reads one.

A call may end well or in a FerbenchError. ``share`` weighs how many of all cases a target gets; slow ones get few.
"""

import contextlib
import io
import json
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support.datasets import lay_down, make_faces, people
from support.runs import CLASSES, store_fold, store_stage

from ferbench.runs.store import Store
from fuzz.mutate import OUTSIDE, Mutator, changed, damaged, json_too, table_too

ROWS = [(f"S{n:02d}", truth, truth if n % 3 else "sadness") for n in range(4) for truth in CLASSES]


@dataclass(frozen=True)
class Target:
    """One reader. seeds : good files. read : takes a file's content."""

    name: str
    seeds: list[bytes]
    read: Callable[[bytes], Any]
    share: float
    mutate: Mutator = damaged


def targets(home: Path, only: str = "") -> list[Target]:
    """Lay down what the targets need below ``home`` and return those whose names hold ``only``."""
    found = []
    for beginnings, maker in (
        (("run: ", "report "), _runs),
        (("set: ",), _sets),
        (("speed ", "plan of"), _speed),
        (("accepted ",), _accepted),
        (("fold file", "predictions from elsewhere"), _tables),
        (("method", "card of", "protocol", "sweep"), _toml),
        (("weights ",), _weights),
        (("ONNX ", "Keras "), _models),
        (("picture",), _pictures),
        (("zip", "tar"), _archives),
        (("dataset ",), _datasets),
    ):
        if any(only in name or name in only for name in beginnings):
            found += maker(home / maker.__name__.strip("_"))
    return [target for target in found if only in target.name]


def _runs(home: Path) -> list[Target]:
    """A stranger's run folder: its record, its predictions, what was begun, and every report of all that."""
    from ferbench.report.build import build
    from ferbench.report.compare import write_comparison
    from ferbench.report.tables import tables
    from ferbench.report.verbs import list_runs, write_report

    store = Store(home / "runs")
    parent = store_stage(store, "attention")
    keys = [
        store_fold(store, fold, rows, seed=seed, parents={"attention": parent}, facts={"notes": ["a note"]})
        for seed in (0, 1)
        for fold, rows in (("01", ROWS[:14]), ("02", ROWS[14:]))
    ]
    store_fold(store, "02", [], seed=2, error="RuntimeError: no memory")
    folder = store.folder(keys[0])
    good = {name: (folder / name).read_bytes() for name in ("record.json", "predictions.csv", "identity.json")}
    # As of before there were checksums, which would shield all that lies behind them.
    record = {key: value for key, value in json.loads(good["record.json"]).items() if key not in ("files", "digest")}
    good["record.json"] = json.dumps(record).encode()
    begun = home / "begun"

    def put(name: str) -> Callable[[bytes], Any]:
        def read(content: bytes) -> None:
            for other, kept in good.items():
                (folder / other).write_bytes(content if other == name else kept)
            store.record(keys[0])
            store.predictions(keys[0])

        return read

    def unfinished(content: bytes) -> None:
        key = _key_of(content)
        shutil.rmtree(begun, ignore_errors=True)
        (begun / key).mkdir(parents=True)
        (begun / key / "identity.json").write_bytes(content)
        Store(begun).unfinished()
        _quiet(list_runs, begun, "console")

    strange = home / "strange"

    def report(content: bytes) -> None:
        """All reports of a folder whose record was changed by somebody who knows how to seal it."""
        _lay_strange(strange, store, content)
        formats = ("markdown", "html", "csv", "latex", "json", "console")
        for format in formats:
            _quiet(write_report, None, format, None, strange)
        _quiet(list_runs, strange, "console")
        (found,) = build(Store(strange))[:1] or [None]
        if found is not None:
            tables(found)
            _quiet(write_comparison, keys[0], keys[2], 3, "markdown", None, strange)

    return [
        Target("run: record.json", [good["record.json"]], put("record.json"), 12, json_too),
        Target("run: predictions.csv", [good["predictions.csv"]], put("predictions.csv"), 4, table_too),
        Target("run: identity.json", [good["identity.json"]], unfinished, 4, json_too),
        Target("report on a stranger's runs", [_bundle(good)], report, 0.3, _stranger),
    ]


def _bundle(files: dict[str, bytes]) -> bytes:
    return json.dumps({name: content.decode() for name, content in files.items()}).encode()


def _stranger(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change a record, or its predictions, so that every checksum still fits."""
    files = json.loads(content)
    if rng.random() < 0.7:
        record = json.loads(files["record.json"])
        part = rng.choice(("facts", "facts", "result", "identity", "environment", "timings", "classes", None))
        if part is None:
            record = changed(record, rng)
        else:
            record[part] = changed(record[part], rng)
        files["record.json"] = json.dumps(record)
    else:
        files["predictions.csv"] = table_too(files["predictions.csv"].encode(), [], rng).decode("utf-8", "replace")
    return json.dumps(files).encode()


def _lay_strange(home: Path, store: Store, content: bytes) -> None:
    """Write a store with all good runs but one, which is as given and sealed anew."""
    from pydantic import ValidationError

    from ferbench.files import seal, sha256_of
    from ferbench.runs.record import Identity

    files = json.loads(content)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(store.home, home)
    record = json.loads(files["record.json"])
    key = record.get("key", "") if isinstance(record, dict) else ""
    if isinstance(record, dict):
        with contextlib.suppress(ValidationError, ValueError, TypeError):
            identity = Identity.model_validate(record.get("identity"))
            record |= {"key": identity.key, "experiment": identity.experiment}
            key = identity.key
        record["files"] = {"predictions.csv": sha256_of(files["predictions.csv"].encode("utf-8", "surrogatepass"))}
        record.pop("digest", None)
        record = seal(record)
    folder = home / (key if isinstance(key, str) and key.isalnum() and key.isascii() and len(key) < 40 else "0" * 16)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "predictions.csv").write_bytes(files["predictions.csv"].encode("utf-8", "surrogatepass"))


def _key_of(content: bytes) -> str:
    """The key of an identity, where it is one: else the check of its folder would shield all others."""
    from pydantic import ValidationError

    from ferbench.runs.record import Identity

    try:
        return Identity.model_validate(json.loads(content)).key
    except (ValidationError, ValueError, RecursionError):
        return "0" * 16


def _sets(home: Path) -> list[Target]:
    """A prepared dataset: its card, its table, its arrays."""
    from ferbench.data import faces as room
    from ferbench.tables import read_array

    lay_down(make_faces(people(3, CLASSES[:3], frames=1), name="toy"), home)
    folder = home / "toy"
    np.save(folder / "landmarks.npy", np.zeros((9, 68, 2), dtype=np.float32))
    names = ("card.json", "samples.csv", "images.npy", "landmarks.npy")
    good = {name: (folder / name).read_bytes() for name in names}

    def put(name: str) -> Callable[[bytes], Any]:
        def read(content: bytes) -> None:
            for other, kept in good.items():
                (folder / other).write_bytes(content if other == name else kept)
            faces = room.load("toy", home, verify=False)
            np.asarray(faces.images[:2]).sum()
            faces.sequence(0)

        return read

    def array(content: bytes) -> None:
        (home / "any.npy").write_bytes(content)
        read_array(home / "any.npy")

    return [
        Target("set: card.json", [good["card.json"]], put("card.json"), 8, json_too),
        Target("set: samples.csv", [good["samples.csv"]], put("samples.csv"), 3, table_too),
        Target("set: npy files", [good["images.npy"][:300], good["landmarks.npy"][:300]], array, 12),
        Target("set: images.npy", [good["images.npy"]], put("images.npy"), 2),
    ]


def _speed(home: Path) -> list[Target]:
    from ferbench.cli.train import rendered
    from ferbench.report import speed as shown
    from ferbench.runs.plans import Plan, Planned, status, stored, under_way
    from ferbench.runs.speed import SpeedRecord, SpeedRow
    from ferbench.runs.store import Store
    from ferbench.schema import read_json, validated

    row = SpeedRow(
        what="inference",
        method="wslgan",
        preset="tiny",
        engine="plain",
        precision="fp32",
        backend="torch",
        device="cpu",
        threads=1,
        batch=1,
        scenario="single-stream",
        blocks=3,
        calls=9,
        images_per_s=90.0,
        images_per_s_low=80.0,
        images_per_s_high=95.0,
        p50_ms=11.0,
        cold_start_s=0.1,
        peak_mb=300.0,
        ratio_naive=2.0,
        ratio_naive_low=1.9,
        ratio_naive_high=2.2,
        error=1e-6,
    )
    record = SpeedRecord(
        mode="quick",
        seed=0,
        environment={"device": "cpu: a", "packages": {"torch": "2"}, "commit": "abc"},
        ceilings={"fp32": {"flops_per_s": 1e9, "bytes_per_s": 1e9}},
        noise=0.01,
        rows=[row],
    )
    home.mkdir()
    path = home / "one.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = validated(SpeedRecord, read_json(path), path)
        for format in ("markdown", "csv", "json"):
            _quiet(shown.write_speed, [found], format, None)

    job = Planned(key="0" * 16, title="a fold", kind="fold", seconds=3.0)
    plan = Plan(command=["train", "wslgan"], started=1.0, at_once=2, jobs=[job])
    with under_way(home, plan):
        pass
    (lying,) = home.glob("plans/*/plan.json")

    def read_standing(content: bytes) -> None:
        lying.write_bytes(content)
        store = Store(home)
        rendered([status(one, store) for one in stored(home)], home)

    return [
        Target("speed record", [record.model_dump_json().encode()], read, 4, json_too),
        Target("plan of a command", [plan.model_dump_json().encode()], read_standing, 4, json_too),
    ]


def _accepted(home: Path) -> list[Target]:
    from ferbench.report import check
    from ferbench.report.compare import results

    store = Store(home / "runs")
    for seed in (0, 1):
        store_fold(store, "01", ROWS, seed=seed, folds=("01",))
    (result,) = results(store)
    good = check.accepted_of(result, "why", []).model_dump_json().encode()
    path = home / "accepted.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        _quiet(check._print, [check.compared(check.read(path), result, None, "a")], "github")

    return [Target("accepted figures", [good], read, 2, json_too)]


def _tables(home: Path) -> list[Target]:
    """CSV files that people bring: folds, and predictions made elsewhere."""
    from ferbench.inference import prediction_files
    from ferbench.protocol import protocol as protocols
    from ferbench.protocol import splits
    from ferbench.protocol.leakage import audit

    faces = make_faces(people(4, CLASSES[:3], frames=1), name="ckplus")
    home.mkdir()
    folds = home / "folds.csv"
    rows = np.arange(len(faces))
    halves = tuple(splits.Split(name, rows[rows % 2 != k], rows[rows % 2 == k]) for k, name in enumerate(("01", "02")))
    good = splits.to_csv(halves, faces)

    def read_folds(content: bytes) -> None:
        folds.write_bytes(content)
        with contextlib.suppress(splits.DataError):
            splits._from_file(folds, faces, rows)
        audit(folds, faces)

    theirs = home / "theirs.csv"
    ids = faces.samples["id"]
    named = "id,prediction\n" + "".join(f"{name},anger\n" for name in ids)
    scored = "id,p_anger,p_fear,p_happy\n" + "".join(f"{name},0.2,0.3,0.5\n" for name in ids)

    def read_theirs(content: bytes) -> None:
        theirs.write_bytes(content)
        prediction_files.read(theirs, faces.samples.iloc[rows], protocols.load("ckplus"))

    return [
        Target("fold file", [good.encode(), b"id,fold\n" + b"S000_000_01,1\n"], read_folds, 3, table_too),
        Target("predictions from elsewhere", [named.encode(), scored.encode()], read_theirs, 5, table_too),
    ]


_SWEEP = b"""
methods = ["wslgan", "small-cnn"]
datasets = ["ckplus"]
seeds = 3
[options]
preset = ["tiny", "light"]
epochs = 4
no-pretrain = true
pretrain-on = "ferplus"
[set]
"finetune.lr" = [0.01, 0.02]
"""


def _toml(home: Path) -> list[Target]:
    """Methods, protocols, cards."""
    from ferbench.execution.options import read_sweep
    from ferbench.files import shipped
    from ferbench.methods.recipes import presets, resolve
    from ferbench.protocol import protocol as protocols

    home.mkdir()
    own = home / "own.toml"
    baselines = sorted(shipped("baselines").glob("*.toml"))
    cards = sorted((shipped("baselines") / "cards").glob("*.toml"))

    def read_method(content: bytes) -> None:
        own.write_bytes(content)
        resolve(str(own), (presets(str(own)) or [""])[0], "ckplus")

    def read_protocol(content: bytes) -> None:
        own.write_bytes(content)
        protocols.load_any(str(own))

    def read_plan(content: bytes) -> None:
        own.write_bytes(content)
        read_sweep(own)

    return [
        Target("sweep", [_SWEEP], read_plan, 4),
        Target("method", [path.read_bytes() for path in baselines], read_method, 8),
        Target("card of a model", [path.read_bytes() for path in cards], read_method, 6),
        Target(
            "protocol", [path.read_bytes() for path in sorted(shipped("protocols").glob("*.toml"))], read_protocol, 8
        ),
    ]


def _weights(home: Path) -> list[Target]:
    import torch

    from ferbench.training import checkpoint

    home.mkdir()
    path = home / "weights.safetensors"
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    progress = checkpoint.TrainingState(2, [{"epoch": 1, "loss": 0.5}], 0.5, {"weight": torch.ones(2, 3)})
    checkpoint.save(path, network, optimizer, progress, torch.nn.Linear(3, 2))
    good = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        checkpoint.epochs_done(path)
        checkpoint.unpack(path)
        checkpoint.restore(path, network, optimizer, network)

    def unsealed(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
        """Half of them lose their seal, or it would shield what lies behind it."""
        plain = content.replace(b'"sha256"', b'"sha255"') if rng.random() < 0.5 else content
        return damaged(plain, others, rng)

    return [Target("weights and checkpoints", [good], read, 10, unsealed)]


def _models(home: Path) -> list[Target]:
    """Models from elsewhere: ONNX graphs, Keras files."""
    from support.models import card, onnx_file

    from ferbench.methods.foreign.cards import template
    from ferbench.methods.foreign.recogniser import ExternalModel
    from ferbench.methods.interface import SampleSet
    from ferbench.methods.recipes import resolve

    home.mkdir()
    images = np.zeros((2, 48, 48), dtype=np.uint8)
    path = home / "small.onnx"
    onnx_file(path, size=8)
    good = path.read_bytes()
    card(home, "small", source="small.onnx", kind="onnx")
    told = (home / "small.toml").read_text().replace("[input]\n", "[input]\nsize = 8\n")
    (home / "small.toml").write_text(told)
    method = resolve(str(home / "small.toml"), "", "ckplus")
    classes = tuple(CLASSES)

    def read_onnx(content: bytes) -> None:
        path.write_bytes(content)
        template(str(path))
        ExternalModel(method, classes).predict(SampleSet(images=images), None)

    return [Target("ONNX model", [good, _outside(good)], read_onnx, 4, _graph_too), *_keras(home, method, classes)]


def _graph_too(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change an ONNX file as bytes, or as a graph: shapes, types, operations, names, graphs that go in circles."""
    import onnx

    if rng.random() < 0.3:
        return damaged(content, others, rng)
    model = onnx.load_model_from_string(content)
    graph = model.graph
    sizes = (0, -1, 1, 7, 2**31, 2**40, 2**62, -(2**62))
    for _ in range(rng.choice((1, 1, 2, 3))):
        way = rng.randrange(8)
        shape = rng.choice([*graph.input, *graph.output]).type.tensor_type
        if way == 0 and shape.shape.dim:
            rng.choice(shape.shape.dim).dim_value = rng.choice(sizes)
        elif way == 1:
            shape.elem_type = rng.randrange(25)
        elif way == 2 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(sizes)
        elif way == 3 and graph.initializer:
            rng.choice(graph.initializer).data_type = rng.randrange(25)
        elif way == 4 and graph.node:
            rng.choice(graph.node).op_type = rng.choice(
                ("Loop", "If", "Scan", "Expand", "Tile", "Pad", "Relu", "Optional")
            )
        elif way == 5 and graph.node:
            node = rng.choice(graph.node)
            node.input[:] = [rng.choice(("faces", "scores", "w", "flat", "", "nothing")) for _ in node.input]
        elif way == 6:
            entry = model.metadata_props.add()
            entry.key, entry.value = "labels", rng.choice(('["anger"]', "[" * 5000, '{"a": 1}', "NaN", '["\\ud800"]'))
        else:
            del (graph.node if rng.random() < 0.5 else graph.input)[:1]
    return bytes(model.SerializeToString())


def _keras(home: Path, method: Any, classes: tuple[str, ...]) -> list[Target]:
    """Files of Keras, where it is installed."""
    import os

    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("KERAS_HOME", str(home / "keras"))
    try:
        import h5py  # noqa: F401
        import keras
    except ImportError:
        return []
    from ferbench.methods.foreign.files import KerasNetwork

    made = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(7, activation="softmax")]
    )
    found = []
    for suffix in ("h5", "keras"):
        path = home / f"small.{suffix}"
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Keras, about numpy's __array__
            made.save(path)

        def read(content: bytes, path: Path = path) -> None:
            path.write_bytes(content)
            KerasNetwork(path)(np.zeros((2, 6, 6, 1), dtype=np.float32))

        found.append(Target(f"Keras file, .{suffix}", [path.read_bytes()], read, 0.2))
    return found


def _outside(good: bytes) -> bytes:
    """The same graph with its weights in a file that lies elsewhere."""
    import onnx

    model = onnx.load_model_from_string(good)
    (tensor,) = model.graph.initializer
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../outside/secret"
    return bytes(model.SerializeToString())


def _pictures(home: Path) -> list[Target]:
    """Pictures in every format that people have, and in one that Pillow would hand to another program."""
    from PIL import Image

    from ferbench.data import align
    from ferbench.data.samples import decode

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8))
    seeds = []
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "EPS"):
        content = io.BytesIO()
        picture.save(content, kind)
        seeds.append(content.getvalue())
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(turned, "JPEG", exif=exif)

    def read(content: bytes) -> None:
        align.resized(decode(content, "a picture"))

    return [Target("picture", [*seeds, turned.getvalue()], read, 12)]


def _archives(home: Path) -> list[Target]:
    """Zips: entries that lead out, links, bombs, backslashes; and tar files where they are read."""
    import stat
    import tarfile
    import zipfile

    from ferbench.data.packed import opened

    home.mkdir()
    names = (
        "a/b.txt",
        "a\\b\\c.txt",
        "../../outside/secret",
        "/etc/passwd",
        "C:\\x.txt",
        "a/../b",
        "__MACOSX/x",
        "é.txt",
    )
    seeds = []
    for name in names:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, "text\n" * 20)
            link = zipfile.ZipInfo("link")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(link, OUTSIDE)
            file.writestr("bomb", bytes(1 << 20))
        seeds.append(content.getvalue())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, kind in (
            ("a/b.txt", tarfile.REGTYPE),
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, OUTSIDE, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"text"))

    def reads(suffix: str) -> Callable[[bytes], Any]:
        path = home / f"any{suffix}"

        def read(content: bytes) -> None:
            path.write_bytes(content)
            with opened(path) as tree:
                for name in tree.paths[:20]:
                    tree.read(name)

        return read

    return [Target("zip", seeds, reads(".zip"), 10), Target("tar.gz", [packed.getvalue()], reads(".tar.gz"), 3)]


def _datasets(home: Path) -> list[Target]:
    """Datasets as they lie on disk, of which one text file or table is another."""
    from ferbench.data.packed import opened
    from ferbench.data.sources import Options, named
    from ferbench.data.synthetic.layouts import LAYOUTS, write_layout

    found = []
    for layout in (layout for layout in LAYOUTS if layout != "oulu"):  # which has no text
        folder = home / layout
        write_layout(layout, folder, 3, 0)
        texts = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".csv")][:6]
        if texts:
            found.append(_dataset(layout, folder, texts, named(layout), Options(), opened))
    folder = home / "manifest"
    folder.mkdir()
    pixels = " ".join(["7"] * 2304)
    table = folder / "manifest.csv"
    table.write_text(f"path,label,subject,split\na.png,anger,S1,train\nb.png,Happy,S2,test\n# {pixels[:20]}\n")
    found.append(_dataset("manifest", folder, [table], named("manifest"), Options(), opened))
    return found


def _dataset(name: str, folder: Path, texts: list[Path], reader: Any, options: Any, opened: Any) -> Target:
    kept = [path.read_bytes()[:20_000] for path in texts]

    def read(content: bytes) -> None:
        """The first line names the file that is another."""
        number, _, rest = content.partition(b"\n")
        place = int(number) if number.isdigit() and len(number) < 3 else 0
        for path, good in zip(texts, kept, strict=True):
            path.write_bytes(good)
        texts[place % len(texts)].write_bytes(rest)
        with opened(texts[0] if name in ("manifest", "fer2013") else folder) as tree:
            for count, sample in enumerate(reader.read(tree, options).samples):
                if count < 3:
                    sample.face()

    seeds = [b"%d\n" % place + good for place, good in enumerate(kept)]

    def one(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
        number, _, rest = content.partition(b"\n")
        return number + b"\n" + table_too(rest, [kept[0]], rng)

    return Target(f"dataset {name}", seeds, read, 1, one)


def _quiet(work: Callable[..., Any], *given: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        work(*given)
