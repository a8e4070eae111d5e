"""Protocol files: what is shipped holds together, and what a user writes wrong is explained."""

import pytest

from ferbench.errors import DataError, UsageError
from ferbench.labels import CELEBA_ATTRIBUTES, PART_ATTRIBUTES, in_order
from ferbench.protocol import protocol as room
from ferbench.protocol.protocol import AttributeProtocol, Protocol

MINE = """
name = "mine"
version = 2
description = "my own"
source = "me"
dataset = "ckplus"
classes = ["sadness", "anger"]
preset = "tiny"
attributes = "celeba"
[folds]
rule = "block"
count = 5
"""
OFFICIAL = MINE.split("[folds]")[0] + "[official]\n"


@pytest.mark.parametrize("name", room.names())
def test_shipped_protocols_name_each_other_and_themselves(name):
    protocol = room.load_any(name)
    assert protocol.identifier == f"{name}@{protocol.version}"
    if isinstance(protocol, AttributeProtocol):
        assert protocol.parts.model_dump() == PART_ATTRIBUTES
        assert {*protocol.parts.eyes, *protocol.parts.mouth} <= set(CELEBA_ATTRIBUTES)
        assert (protocol.train_per_part, protocol.validation_per_part) == (30_000, 3_000)
        return
    room.load_attributes(protocol.attributes)
    if protocol.pretrain:
        source = room.load(protocol.pretrain).official
        assert source is not None
        assert source.train


def test_the_papers_protocols_are_the_papers():
    """Section IV: classes, frames, folds; Tables 3, 5 and 7: 981, 1440 and 15,339 images."""
    facts = {
        name: (len(p.classes), p.frames, p.folds and p.folds.count, p.expected_images, p.preset, p.pretrain)
        for name in ("ckplus", "oulu", "rafdb")
        for p in [room.load(name)]
    }
    assert facts == {
        "ckplus": (7, "last3", 10, 981, "paper", "fer2013"),
        "oulu": (6, "last3", 10, 1440, "paper", "fer2013"),
        "rafdb": (7, "all", None, 15339, "paper", "fer2013"),
    }
    assert "neutral" not in room.load("ckplus").classes
    assert room.load("ckplus").classes[1] == "contempt"


def test_a_users_own_file_is_read_and_its_classes_put_in_order(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    protocol = room.load(str(path))
    assert protocol.identifier == "mine@2"
    assert protocol.classes == tuple(in_order(["sadness", "anger"])) == ("anger", "sadness")
    assert isinstance(protocol, Protocol)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (MINE.replace("sadness", "sadnes"), "unknown emotion 'sadnes'"),
        (MINE.replace("count = 5", "count = 1"), "folds.count"),
        (MINE.replace('"block"', '"alphabet"'), "folds.rule"),
        (MINE + "surprise = 1", "folds.surprise: Extra inputs"),
        (MINE + '[official]\ntrain = "train"\n', "exactly one of"),
        (MINE.split("[folds]")[0], "exactly one of"),
        (OFFICIAL + 'train = "train"\ntest = "train"\n', "must be different splits"),
        (OFFICIAL + 'train = "train"\nvalidation = "test"\ntest = "test"\n', "must be different splits"),
        (OFFICIAL + 'train = "Training"\n', "official.train"),
        ('kind = "attributes"\n[parts]\neyes = ["Eyeglasses"]\n', "parts.mouth: Field required"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        room.load_any(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_are_helped_along(tmp_path):
    with pytest.raises(UsageError, match="did you mean ckplus"):
        room.load("ckpluss")
    with pytest.raises(
        UsageError,
        match=r"holds attributes.*choose one of affectnet, affectnet-7, ckplus, ckplus-sequences, .*synth, synth-sequences, synth-wild$",
    ):
        room.load("celeba")
    with pytest.raises(UsageError, match="learned from an attribute protocol"):
        room.load_attributes("ckplus")
    with pytest.raises(DataError, match="does not exist"):
        room.load(str(tmp_path / "none.toml"))
