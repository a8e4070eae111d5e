"""Jobs on the nodes of a Ray cluster: several nodes on this machine, one of them lost in the middle of a job."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.command import SMALL, ferbench

ABLATION = ["ablate", "--dataset", "synth", "--variants", "gfnet", *SMALL, "--precision", "fp32"]
NODES = 3
# In a process of its own: Ray keeps threads and handlers of signals for as long as a process lasts.
CLUSTER = f"""
import sys
from ray.cluster_utils import Cluster

small = dict(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args={{**small, "num_cpus": 0}})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range({NODES})]
cluster.wait_for_nodes()
print(cluster.address, *(node.node_id for node in nodes), flush=True)
for line in sys.stdin:
    (lost,) = (node for node in nodes if node.node_id == line.strip())
    cluster.remove_node(lost, allow_graceful=False)
    print("lost", flush=True)
cluster.shutdown()
"""


def bytes_of(runs: Path) -> dict[str, bytes]:
    return {
        path.relative_to(runs).as_posix(): path.read_bytes()
        for name in ("predictions.csv", "weights.safetensors", "history.csv", "identity.json")
        for path in runs.glob(f"*/{name}")
    }


@pytest.mark.slow
@pytest.mark.long
def test_an_ablation_on_three_nodes_of_which_one_is_lost_ends_in_the_tables_of_one_made_here(tmp_path):
    pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    ferbench(*ABLATION, "--jobs", "1", cwd=here)
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **quiet},
    )
    lost: list[tuple[str, str]] = []  # node, run
    over = threading.Event()
    try:
        address, *nodes = cluster.stdout.readline().split()

        def lose_one_at_work() -> None:
            """Wait until a node is in the middle of a fold, then kill it."""
            while not over.is_set():
                for node in nodes:
                    begun = Path(tempfile.gettempdir()).glob(f"ferbench-*-{node[:12]}/runs/*/identity.json")
                    at_work = [path for path in begun if not (path.parent / "record.json").exists()]
                    folds = [path.parent.name for path in at_work if '"kind": "fold"' in path.read_text()]
                    if folds:
                        cluster.stdin.write(f"{node}\n")
                        cluster.stdin.flush()
                        assert cluster.stdout.readline() == "lost\n"
                        lost.extend((node, fold) for fold in folds)
                        return
                time.sleep(0.05)

        killer = threading.Thread(target=lose_one_at_work)
        killer.start()
        ferbench(*ABLATION, "--executor", "ray", "--address", address, cwd=there)
        over.set()
        killer.join()
    finally:
        over.set()
        cluster.stdin.close()
        cluster.wait(30)
        cluster.stdout.close()
    ((gone, run),) = lost  # and yet
    runs = json.loads(ferbench("runs", "--format", "json", cwd=there).stdout)
    assert {row["state"] for row in runs} == {"done"}
    assert run in {row["key"] for row in runs}
    tables = ["report", "--ablation", "--format", "markdown"]
    assert ferbench(*tables, cwd=there).stdout == ferbench(*tables, cwd=here).stdout
    assert bytes_of(there / "runs") == bytes_of(here / "runs")
    for node in nodes:  # nothing is left on those that could clear up
        assert node == gone or not list(Path(tempfile.gettempdir()).glob(f"ferbench-*-{node[:12]}"))
