"""Jobs in their order: reuse, failure, several processes; options and their command line."""

import fcntl
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from support.datasets import make_faces

from ferbench.errors import JobFailed, UsageError
from ferbench.execution import local
from ferbench.execution.jobs import Job, JobGraph
from ferbench.execution.local import execute, max_parallel, worker_processes, worker_threads
from ferbench.execution.options import Compute, TrainOptions, parse_folds
from ferbench.execution.requests import Request
from ferbench.execution.session import Schedule, Session, estimated
from ferbench.execution.worker import jobs_from_json, jobs_to_json
from ferbench.methods.recipes import names, presets, resolve
from ferbench.methods.wslgan import cost as measured
from ferbench.protocol import protocol as protocols
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store
from ferbench.training import checkpoint
from ferbench.training.checkpoint import TrainingState
from ferbench.training.device import Device
from ferbench.training.loop import train_in_parallel
from ferbench.training.networks import seconds_of

REQUEST = Request(resolve("wslgan", "tiny", "synth"), protocols.load("synth"), command="ferbench train wslgan")
FACTS = {"folds": ["01", "02"], "rule": "step", "split_hash": "0"}
FACES = make_faces([{"label": "anger"}])


def job(kind: str, fold: str = "", parents: dict[str, str] | None = None) -> Job:
    identity = Identity(
        kind=kind,
        method="wslgan",
        preset="tiny",
        recipe={},
        protocol="synth@1",
        data="d",
        fold=fold,
        seed=0,
        precision="fp32",
        code=1,
        parents=parents or {},
    )
    return Job(identity, REQUEST, FACES, protocols.load("synth"))


def chain() -> list[Job]:
    amg = job("attention")
    pre = job("pretrain", parents={"attention": amg.key})
    folds = [job("fold", name, {"attention": amg.key, "pretrain": pre.key}) for name in ("01", "02")]
    return [amg, pre, *folds]


def maker(store: Store, broken: str = "", made: list[str] | None = None):
    def make(one: Job) -> Record:
        store.begin(one.identity)
        if one.kind == broken or one.identity.fold == broken != "":
            raise RuntimeError("the reason\nand more")
        if made is not None:
            made.append(one.key)
        record = Record(
            key=one.key,
            experiment=one.identity.experiment,
            identity=one.identity,
            dataset="toy",
            classes=[],
            environment={"device": "cpu"},
            facts=FACTS,
            timings={},
        )
        store.finish(record)
        return record

    return make


def test_the_estimate_leaves_out_epochs_that_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "_measured", lambda *_: 0.001)
    monkeypatch.setattr(Job, "training_images", 100)
    store, jobs = Store(tmp_path), chain()[:2]
    states = {one.key: "partial" for one in jobs}
    threads = dict.fromkeys(("attention", "pretrain", "fold"), torch.get_num_threads())
    whole = estimated(jobs, store, states, Device(), threads)[0]
    part, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(part.parameters(), 0.1)
    half = TrainingState(REQUEST.method.recipe.attention.epochs // 2)
    checkpoint.save(store.folder(jobs[0].key) / "checkpoint" / "eyes.safetensors", part, optimizer, half)
    left = estimated(jobs, store, states, Device(), threads)[0]
    share = half.epoch / (2 * REQUEST.method.recipe.attention.epochs)  # one of two parts is so far
    assert left[jobs[0].key] == pytest.approx((1 - share) * whole[jobs[0].key])
    assert left[jobs[1].key] == whole[jobs[1].key] > 0
    checkpoint.save(
        store.folder(jobs[1].key) / "checkpoint" / "network.safetensors",
        network,
        optimizer,
        TrainingState(REQUEST.method.recipe.pretrain.epochs),
    )
    assert estimated(jobs, store, states, Device(), threads)[0][jobs[1].key] == 0


def test_folds_that_do_not_fill_the_last_round_are_counted_as_a_round(tmp_path):
    jobs = [job("attention"), *(job("fold", f"{n:02d}") for n in range(1, 6))]
    seconds = {one.key: 12.0 if one.kind == "attention" else 10.0 for one in jobs}
    graph = JobGraph([REQUEST], jobs, [])
    schedule = Schedule(Device(), {"attention": 1, "fold": 2})
    durations = Session(graph, Store(tmp_path), tmp_path, schedule, {}, seconds).durations()
    assert sum(durations.values()) == pytest.approx(12 + 3 * 10)
    assert durations[jobs[0].key] == pytest.approx(12)
    schedule = Schedule(Device(), {"fold": 1})
    done = Session(graph, Store(tmp_path), tmp_path, schedule, {}, dict.fromkeys(seconds, 0.0))
    assert sum(done.durations().values()) == 0


def test_a_measured_call_has_its_own_threads_while_the_others_are_busy_with_the_same():
    before, at_work, most_at_work, seen, lock = torch.get_num_threads(), 0, 0, set(), threading.Lock()

    def made():
        def call():
            nonlocal at_work, most_at_work
            with lock:
                at_work += 1
                most_at_work = max(most_at_work, at_work)
                seen.add(torch.get_num_threads())
            time.sleep(0.02)
            with lock:
                at_work -= 1

        return call

    try:
        torch.set_num_threads(4)
        assert seconds_of(made, Device(), 2) == pytest.approx(0.02, rel=2)
        assert (most_at_work, seen) == (2, {2})
        most_at_work, seen = 0, set()
        seconds_of(made, Device(), 4, most=1)
        assert (most_at_work, seen, torch.get_num_threads()) == (1, {1}, 4)
    finally:
        torch.set_num_threads(before)


def test_a_method_of_small_steps_is_trained_on_one_thread(tmp_path):
    small, large = (resolve("wslgan", preset, "synth") for preset in ("demo", "tiny"))
    assert [one.family.threads(one) for one in (small, large)] == [1, 0]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for device, most, threads in ((Device(), 1, 1), (Device(), 0, 2), (Device(), 8, 2), (Device("cuda"), 1, 2)):
            with device.threads(most):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    recipe, protocol = small.recipe.model_copy(update={"threads": 2}), protocols.load("synth")
    more = small.model_copy(update={"recipe": recipe})
    for kind in ("attention", "pretrain", "fold"):  # where it is computed is no part of what is
        assert small.family.identity(kind, small, protocol) == more.family.identity(kind, more, protocol)


@pytest.mark.parametrize(
    ("wanted", "device", "at_once"),
    [("auto", "cpu", 4), ("auto", "cuda", 1), ("3", "cpu", 3), ("99", "cpu", 4), ("99", "cuda", 10)],
)
def test_folds_side_by_side_share_the_threads(wanted, device, at_once):
    assert max_parallel(wanted, 10, 4, device) == at_once
    assert max_parallel(wanted, 0, 4, device) == 1


def test_folds_side_by_side_are_a_number_or_auto():
    for wrong in ("0", "-1", "all"):
        with pytest.raises(UsageError, match="--jobs"):
            max_parallel(wrong, 10, 2, "cpu")


@pytest.mark.parametrize("deaf", [False, True], ids=["told", "deaf"])
def test_worker_processes_do_not_outlive_the_block(deaf, tmp_path, monkeypatch):
    made, start = [], subprocess.Popen

    def sleeper(command, **more):
        assert command[1:] == ["-m", "ferbench.execution.worker", "jobs.json"]
        trap, up = "trap '' TERM; " if deaf else "", tmp_path / str(len(made))
        made.append(start(["sh", "-c", f"{trap}touch {up}; exec sleep 60"], **more))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    monkeypatch.setattr(local, "_TERMINATION_WAIT", 0.5)
    with worker_processes(2, Path("jobs.json")):
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        assert [process.poll() for process in made] == [None, None]
        monkeypatch.setattr(local, "_IDLE_WAIT", 0.01)
    assert [process.poll() for process in made] == [-9 if deaf else -15] * 2


def test_worker_threads_are_dismissed_at_their_next_step_and_leave_no_failure(tmp_path):
    store, begun = Store(tmp_path), threading.Event()
    (one,) = chain()[:1]

    def work(report) -> None:
        def make(job: Job) -> Record:
            begun.set()
            while True:
                report(1, 2, "")
                time.sleep(0.01)

        list(execute([one], store, make))

    with pytest.raises(KeyboardInterrupt), worker_threads(1, "cpu", work):  # noqa: PT012
        assert begun.wait(5)
        raise KeyboardInterrupt
    assert "worker" not in {thread.name for thread in threading.enumerate()}
    assert store.state(one.key) == "absent"  # neither done nor failed: the same command goes on


def test_parents_come_first_and_done_runs_are_reused(tmp_path):
    store, made = Store(tmp_path), []
    jobs = chain()
    outcomes = list(execute(jobs[::-1], store, maker(store, made=made)))
    assert made[:2] == [jobs[0].key, jobs[1].key]
    assert [outcome.reused for outcome in outcomes] == [False] * 4
    assert all(outcome.reused for outcome in execute(jobs, store, maker(store, made=made)))
    assert len(made) == 4


def test_a_failed_fold_is_kept_as_a_record_and_the_others_go_on(tmp_path):
    store, jobs, seen = Store(tmp_path), chain(), []
    with pytest.raises(JobFailed, match="1 of 4 jobs failed"):  # noqa: PT012
        for outcome in execute(jobs, store, maker(store, broken="01")):
            seen.append((outcome.job.identity.fold, outcome.record.error))
    assert ("02", "") in seen
    assert ("01", "RuntimeError: the reason") in seen
    assert "and more" in (store.folder(jobs[2].key) / "traceback.txt").read_text()
    assert store.record(jobs[2].key).facts["command"] == "ferbench train wslgan"
    list(execute(jobs, store, maker(store)))  # the same command again
    assert store.state(jobs[2].key) == "done"


def test_what_starts_from_a_failed_run_is_not_started(tmp_path):
    store, made = Store(tmp_path), []
    with pytest.raises(JobFailed, match="3 of 4"):
        list(execute(chain(), store, maker(store, broken="pretrain", made=made)))
    assert len(made) == 1


def test_a_run_that_another_process_makes_is_waited_for(tmp_path):
    store, jobs = Store(tmp_path), chain()
    folder = store.folder(jobs[0].key)
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made: list[str] = []
        thread = threading.Thread(target=lambda: list(execute(jobs, store, maker(store, made=made))))
        thread.start()
        time.sleep(0.3)
        assert made == []
        maker(store)(jobs[0])  # the other process ends its run …
    thread.join(timeout=600)  # … and lets go
    assert made == [one.key for one in jobs[1:]]


def test_what_another_process_made_is_told_before_the_next_job_begins(tmp_path, monkeypatch):
    names = ["01", "02", "03", "04"]
    monkeypatch.setitem(FACTS, "folds", names)
    store, jobs = Store(tmp_path), chain()[:2] + [job("fold", name) for name in names]
    theirs, told = jobs[2], []
    make = maker(store)

    def beside(one: Job) -> Record:
        """The other process ends fold 01 while fold 02 is trained here."""
        record = make(one)
        if one is jobs[3]:
            make(theirs)
            fcntl.flock(lock, fcntl.LOCK_UN)
        return record

    folder = store.folder(theirs.key)
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for outcome in execute(jobs, store, beside):
            told.append((outcome.job.identity.fold, outcome.reused))
    assert told[2:] == [("02", False), ("01", True), ("03", False), ("04", False)]


def test_identity_decides_the_key_and_nothing_else_does():
    a, b = job("fold", "01"), job("fold", "02")
    assert a.key != b.key
    assert a.identity.experiment == b.identity.experiment
    again = Identity.model_validate_json(a.identity.model_dump_json())
    assert again.key == a.key


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("3", ("03",)),
        ("01,4", ("01", "04")),
        ("1-3", ("01", "02", "03")),
        ("official", ("official",)),
        ("2,2", ("02",)),
    ],
)
def test_folds_as_people_write_them(text, names):
    assert parse_folds(text) == names


def test_folds_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="--folds takes numbers"):
        parse_folds("a-b")


def test_the_command_line_that_makes_a_run_is_kept():
    options = TrainOptions(
        "wslgan",
        "ckplus",
        preset="tiny",
        seed=3,
        folds="01",
        folds_file=Path("f.csv"),
        rule="file",
        pretrain=False,
        overrides=("interpretation.pairing=balanced",),
        compute=Compute(device="cpu", threads=1),
    )
    assert options.command() == (
        "ferbench train wslgan --dataset ckplus --preset tiny --rule file --folds-file f.csv --seed 3 --no-pretrain "
        "--set interpretation.pairing=balanced"
    )


def test_what_a_command_changes_is_named_for_reports():
    assert TrainOptions("wslgan", "ckplus", preset="tiny", seed=3, folds="01").changes == ()
    options = TrainOptions(
        "wslgan",
        "ckplus",
        recipe="modern",
        epochs=4,
        amg="12ab",
        pretrained="34cd",
        pretrain=False,
        overrides=("finetune.lr=0.1", "finetune.flip=true"),
    )
    assert options.changes == (
        "recipe=modern",
        "epochs=4",
        "attention maps of run 12ab",
        "pre-trained weights of run 34cd",
        "finetune.lr=0.1",
        "finetune.flip=true",
        "no pre-training",
    )


@pytest.mark.parametrize("at_once", [1, 2])
def test_trainings_of_one_run_report_as_one_and_give_their_results_in_order(at_once):
    told = []

    def train(number, report):
        for step in range(1, 4):
            report(step, 3, f"part {number}")
        return number

    assert train_in_parallel(2, at_once, 1, train, lambda done, total, text: told.append((done, total))) == [0, 1]
    assert sorted(told) == [(done, 6) for done in range(1, 7)]


def test_an_interrupted_training_ends_the_one_beside_it_at_its_next_step():
    ends, began = [], threading.Event()

    def train(number, report):
        if number == 0:
            assert began.wait(10)
            raise KeyboardInterrupt
        try:
            for step in range(100_000):
                report(step, 100_000, "")
                began.set()
                time.sleep(0.001)
        finally:
            ends.append(number)

    with pytest.raises(KeyboardInterrupt):
        train_in_parallel(2, 2, 1, train, lambda *_: None)
    assert ends == [1]


@pytest.mark.parametrize("name", names())
def test_a_request_is_the_same_after_it_was_read_from_json(name):
    """So a worker process trains the same method, whatever its family."""
    for preset in presets(name):
        request = Request(resolve(name, preset, "synth"), protocols.load("synth"), folds=("01",), changes=("a=1",))
        one = Job(job("fold", "01").identity, request, FACES, protocols.load("synth"))
        (read,) = jobs_from_json(json.loads(json.dumps(jobs_to_json([one]))), lambda _: FACES)
        assert read.request == request
        assert read.method.family.identity("fold", read.method, read.request.protocol) == request.family.identity(
            "fold", request.method, request.protocol
        )
