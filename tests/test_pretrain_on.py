"""``--pretrain-on``: another pre-training than the one that the protocol of the target names."""

from dataclasses import replace

import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people

from ferbench.errors import UsageError
from ferbench.execution.options import Compute, TrainOptions
from ferbench.execution.requests import ablation, requests_of
from ferbench.execution.training import prepare_training
from ferbench.files import shipped

PLAIN = TrainOptions("wslgan", "ckplus", "tiny", epochs=1, compute=Compute(device="cpu"))
OTHER = replace(PLAIN, pretrain_on="ferplus")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ferbench.execution.session.estimated", lambda jobs, *rest: ({job.key: 0.0 for job in jobs}, {})
    )
    lay_down(make_faces(people(10, ["anger", "happiness", "surprise"], frames=1), name="ckplus"), tmp_path / "data")
    for name in ("ferplus", "fer2013"):
        lay_down(make_faces([{"label": "anger", "split": "train"}], name=name), tmp_path / "data")
    return tmp_path


def keys(options: TrainOptions, home) -> dict[tuple[str, str], str]:
    """The keys of all jobs of a training, by kind and fold."""
    session = prepare_training([options], home / "runs", home / "data")
    return {(job.kind, job.identity.fold): job.key for job in session.jobs}


def test_keys_are_those_of_a_protocol_file_that_names_the_same_pre_training(home):
    text = (shipped("protocols") / "ckplus.toml").read_text(encoding="utf-8")
    file = home / "ckplus.toml"
    file.write_text(text.replace('pretrain = "fer2013"', 'pretrain = "ferplus"'), encoding="utf-8")
    assert keys(OTHER, home) == keys(replace(PLAIN, dataset=str(file)), home)
    before, after = keys(PLAIN, home), keys(OTHER, home)
    assert before.keys() == after.keys()
    assert not {*before.values()} & {*after.values()}


def test_what_the_protocol_names_anyway_changes_nothing(home):
    named = replace(PLAIN, pretrain_on="fer2013")
    assert keys(named, home) == keys(PLAIN, home)
    assert requests_of([named]) == requests_of([PLAIN])


def test_it_is_in_the_command_of_a_run_and_in_what_it_changed():
    (request,) = requests_of([OTHER])
    assert request.command == "ferbench train wslgan --dataset ckplus --preset tiny --epochs 1 --pretrain-on ferplus"
    assert request.changes == ("epochs=1", "pre-trained on ferplus")


@pytest.mark.parametrize("dataset", ["oulu", "rafdb"])
def test_other_targets_and_all_variants_of_an_ablation_take_it(dataset):
    requests = requests_of(ablation(replace(OTHER, dataset=dataset), seeds=2))
    assert {request.protocol.pretrain for request in requests} == {"ferplus"}
    assert len({request.method.name for request in requests}) > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrain_on": "jaffe"}, "jaffe@1 has folds; pre-training needs a protocol with an official split"),
        ({"pretrain_on": "celeba"}, "celeba holds attributes"),
        ({"pretrain_on": "ferplis"}, "did you mean ferplus"),
        ({"dataset": "ferplus", "pretrain_on": "ferplus-public"}, "trains on ferplus itself"),
        ({"pretrain": False}, "--no-pretrain skips the pre-training that --pretrain-on names"),
        ({"method": "hog-svm"}, "linear SVM is not pre-trained: leave out --pretrain-on"),
    ],
)
def test_what_cannot_be_pre_trained_on_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        requests_of([replace(OTHER, epochs=None, **changes)])


def test_the_command_takes_the_shipped_network_where_only_the_target_is_prepared(tmp_path):
    lay_down(make_faces(people(10, ["anger", "happiness"], frames=1), name="oulu"), tmp_path / "data")
    train = ["train", "wslgan", "--dataset", "oulu", "--folds", "01", "--preset", "tiny", "--threads", "1"]
    told = " ".join(ferbench(*train, "--pretrain-on", "ferplus", "--dry-run", cwd=tmp_path).stdout.split())
    assert "pretrain: weights that come with ferbench, 84.31% of 3,199 validation images 0816bf7cd328bbae" in told
    told = ferbench(*train, "--pretrain-on", "ferplus", "--dry-run", "--preset", "wide", cwd=tmp_path, code=3).stderr
    assert "or take --preset tiny, whose weights come with ferbench" in " ".join(told.split())
