"""Feature pipelines as recognisers: they learn, are taken up again byte for byte, and learn from the training set alone."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from support.recognisers import CLASSES, other_set, training_set, workspace

from ferbench.errors import DataError, UsageError
from ferbench.methods.features import FAMILY, Classifier
from ferbench.methods.features.recogniser import LinearMargins, compact, derived
from ferbench.methods.interface import FOLD, SampleSet, Task, Video
from ferbench.methods.recipes import presets, resolve
from ferbench.training.checkpoint import pack, unpack
from ferbench.training.device import Device

SMALL = {
    "largest-class": (),
    "hog-svm": (),
    "neutral-hog": (),
    "hog3d": ("descriptor.cells=[3,3,2]",),
    "cov3d": ("descriptor.windows=[24,48]", "descriptor.frames=8"),
    "stm-explet": ("descriptor.modes=3", "descriptor.frames=4", "descriptor.components=6"),
    "lomo": ("descriptor.epochs=10", "descriptor.restarts=2", "descriptor.components=20"),
    "lomo-fused": ("descriptor.epochs=10", "descriptor.restarts=2", "descriptor.components=20"),
}
NAMES = sorted(SMALL)


def method(name, *words, preset=""):
    return resolve(name, preset, "ckplus", (*SMALL[name], *words))


def built(name, *words):
    return FAMILY.recogniser(method(name, *words), FOLD, CLASSES)


def needed(name):
    """Which videos a method reads: of 3 frames as CK+48 has them, with landmarks where it needs them."""
    return {"frames": 3, "landmarks": "landmarks" in FAMILY.needs(method(name))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each method, trained once: (recogniser, training set, workspace)."""
    recognisers = {}
    for name in NAMES:
        samples, work = training_set(**needed(name)), workspace(tmp_path_factory.mktemp(name))
        recognisers[name] = built(name), samples, work
        recognisers[name][0].fit(samples, work)
    return recognisers


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_what_can_be_learned(name, trained):
    recogniser, _, work = trained[name]
    tested, labels = other_set(**needed(name))
    probabilities = recogniser.predict(tested, work)
    assert probabilities.shape == (12, 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    right = (probabilities.argmax(axis=1) == labels).mean()
    assert right == pytest.approx(1 / 3) if name == "largest-class" else right >= 0.9
    assert work.facts.get("uncalibrated", False) is (name != "largest-class")


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learned_is_taken_up_again_byte_for_byte(name, trained, tmp_path):
    recogniser, _, work = trained[name]
    file = tmp_path / "weights.safetensors"
    file.write_bytes(pack(recogniser.state(), {}))
    other = built(name)
    other.load(unpack(file)[0])
    tested, _ = other_set(**needed(name))
    assert other.predict(tested, work).tobytes() == recogniser.predict(tested, work).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training_gives_the_same_bytes_and_another_test_set_changes_none(name, trained, tmp_path):
    recogniser, samples, work = trained[name]
    before = pack(recogniser.state(), {})
    tested, _ = other_set(**needed(name))
    clean = recogniser.predict(tested, work)
    poison = replace(
        tested,
        images=np.concatenate([tested.images[:1], np.full_like(tested.images[1:], 255)]),
        videos=[tested.videos[0], *(Video(255 - 0 * one.frames, one.landmarks) for one in tested.videos[1:])],
    )
    np.testing.assert_allclose(recogniser.predict(poison, work)[0], clean[0], rtol=1e-9)
    assert pack(recogniser.state(), {}) == before
    again = built(name)
    again.fit(samples, workspace(tmp_path))
    assert pack(again.state(), {}) == before


@pytest.mark.parametrize("name", ["hog-svm", "hog3d", "cov3d", "stm-explet"])
def test_penalties_are_chosen_on_held_out_people(name, tmp_path):
    work = workspace(tmp_path)
    history = built(name, "classifier.c=[0.0001,1.0]").fit(training_set(**needed(name)), work)
    assert [row["c"] for row in history] == [0.0001, 1.0]
    best = max(history, key=lambda row: (row["inner_accuracy"], -row["c"]))
    assert work.facts["c"] == best["c"]


def test_one_person_alone_leaves_nothing_to_choose_by(tmp_path):
    samples, work = training_set(3), workspace(tmp_path)
    history = built("hog-svm").fit(samples, work)
    assert len(history) == 1
    assert "was not compared with others" in work.notes[0]


@pytest.mark.parametrize("present", [[0], [2], [0, 2]])
def test_a_class_without_samples_is_never_predicted(present):
    rng = np.random.default_rng(0)
    labels = np.array(present * 6)
    x = rng.normal(size=(len(labels), 4)) + 5 * labels[:, None]
    machine = LinearMargins(Classifier(c=(1.0,), inner=2, scale="standard", kernel="linear"), 3).fit(x, labels, 1.0, 0)
    probabilities = softmax(machine.decide(x), axis=1)
    assert (probabilities.argmax(axis=1) == labels).all()
    assert (probabilities[:, sorted({0, 1, 2} - set(present))] == 0).all()


def test_margins_are_scikit_learn_s():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(3)
    labels = np.arange(30) % 3
    x = rng.normal(size=(30, 5)) + labels[:, None]
    machine = LinearMargins(Classifier(c=(1.0,), inner=2, scale="standard", kernel="linear"), 3).fit(x, labels, 0.5, 7)
    reference = make_pipeline(StandardScaler(), LinearSVC(C=0.5, random_state=7, max_iter=20_000)).fit(x, labels)
    np.testing.assert_allclose(machine.decide(x), reference.decision_function(x), atol=1e-9)


def test_more_features_than_samples_are_learned_in_the_samples_own_space():
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(3)
    labels = np.arange(30) % 3
    x = rng.normal(size=(30, 200)) + labels[:, None] / 4
    given, basis = compact(x)
    assert given.shape == (30, 30)
    np.testing.assert_allclose(given @ basis, x, atol=1e-12)
    machine = LinearMargins(Classifier(c=(1.0,), inner=2, scale="none", kernel="linear"), 3).fit(x, labels, 0.5, 7)
    reference = LinearSVC(C=0.5, tol=1e-10, max_iter=1_000_000).fit(x, labels)
    np.testing.assert_allclose(machine.decide(x), reference.decision_function(x), atol=1e-3)


def test_a_machine_that_stops_early_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("ferbench.methods.features.recogniser.ITERATIONS", 1)
    work = workspace(tmp_path)
    built("hog-svm", "classifier.c=[1000.0]").fit(training_set(), work)
    assert work.notes == ["the support vector machine stopped at its largest number of steps"]


def test_the_largest_class_is_what_it_says(tmp_path):
    samples = training_set(5)  # 2, 2 and 1 samples
    recogniser, work = built("largest-class"), workspace(tmp_path)
    recogniser.fit(samples, work)
    np.testing.assert_array_equal(recogniser.predict(other_set(4)[0], work), np.tile([0.4, 0.4, 0.2], (4, 1)))


def test_what_is_missing_is_said_in_one_line(tmp_path):
    images = training_set(6)
    with pytest.raises(DataError, match="reads sequences"):
        built("hog3d").fit(images, workspace(tmp_path))
    with pytest.raises(DataError, match="reads landmarks"):
        built("lomo-fused").fit(training_set(6, frames=3), workspace(tmp_path))
    assert FAMILY.needs(method("hog-svm")) == frozenset()
    assert FAMILY.needs(method("neutral-hog")) == {"sequences", "neutral"}
    assert FAMILY.needs(method("lomo")) == {"sequences"}
    assert FAMILY.needs(method("lomo-fused")) == {"sequences", "landmarks"}


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    def fails(recipe, classes):
        raise ModuleNotFoundError("No module named 'skimage'", name="skimage.feature")

    monkeypatch.setattr("ferbench.methods.features._build", fails)
    with pytest.raises(UsageError, match=r"pip install 'ferbench\[features\]'"):
        built("hog-svm")


def test_recipes_contradict_themselves_no_more():
    for words, said in ((("descriptor.frames=4",), "need 5 frames"), (("descriptor.reads=[]",), "at least 1")):
        with pytest.raises(DataError, match=said):
            method("lomo", *words)


def test_derived_samples_are_turned_and_mirrored_with_their_landmarks():
    from ferbench.training.augment import ANGLES

    picture = np.zeros((2, 48, 48), dtype=np.uint8)
    points = np.full((2, 68, 2), 23.5, dtype=np.float32)
    picture[:, 9:12, 33:36] = 255
    points[:, 36] = [34, 10]  # the middle of the spot
    samples = replace(training_set(1), images=picture[-1:], videos=[Video(picture, points)])
    many = derived(samples)
    assert len(many) == len(many.videos) == 2 * len(ANGLES)
    assert many.labels.tolist() == [0] * 14
    for number, video in enumerate(many.videos):
        np.testing.assert_array_equal(many.images[number], video.frames[-1])
        y, x = np.argwhere(video.frames[0] > 128).mean(axis=0)
        point = 36 if number < len(ANGLES) else 45  # the mirrored left eye's corner is the right one's
        np.testing.assert_allclose(video.landmarks[0, point], [x, y], atol=0.5)


def test_samples_held_out_for_choosing_an_epoch_are_said_to_be_unused(tmp_path):
    work = workspace(tmp_path, validation=training_set(6), keep_best=True)
    built("hog-svm").fit(training_set(), work)
    assert work.notes == ["no epoch was chosen, since none is kept: the samples held out for that are not used"]


def test_learning_from_derived_samples_holds_out_originals(tmp_path):
    work = workspace(tmp_path)
    history = built("hog-svm", 'training.augment="expand"').fit(training_set(12), work)
    assert all(row["inner_accuracy"] * 12 == pytest.approx(round(row["inner_accuracy"] * 12)) for row in history)


def test_the_estimate_grows_with_the_task(tmp_path):
    seconds = FAMILY.estimate(Device())
    few, many = (
        Task(workspace(tmp_path).identity, method("hog3d"), None, None, images=count, tested=10) for count in (10, 1000)
    )
    assert 0 < seconds(few, 1) < seconds(many, 1)
    assert seconds(many, 1) == seconds(many, 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_can_be_built_and_says_what_differs(name):
    assert presets(name)[0] == "tiny"
    assert {"tiny", "common", "paper"} <= set(presets(name))
    for preset in presets(name):
        resolved = resolve(name, preset, "ckplus")
        assert FAMILY.recogniser(resolved, FOLD, CLASSES)
        assert all(text.endswith(".") for text in resolved.differs)


def test_reading_recipes_is_light():
    code = (
        "import sys\nfrom ferbench.methods.recipes import resolve\n"
        "assert resolve('hog3d', 'tiny', 'ckplus').family.needs(resolve('lomo', 'tiny', 'ckplus'))\n"
        "sys.exit(9 if {'torch', 'sklearn', 'skimage', 'pyriemann'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_single_sample_is_predicted(trained):
    for name in NAMES:
        recogniser, samples, work = trained[name]
        one = SampleSet(images=samples.images[:1], videos=samples.videos[:1])
        assert recogniser.predict(one, work).shape == (1, 3)
