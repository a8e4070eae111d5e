"""``python -m ferbench`` in a process of its own, without the seconds that Python and torch take to start.

A server imports what the command uses, once, and forks for each call. The child has the folder, the environment and
the streams of the call and runs the module ``ferbench`` as Python's ``-m`` does. What only a new interpreter shows, such
as the encoding of its streams, is asked of a new interpreter: see :func:`run`.
"""

import array
import atexit
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from importlib import import_module, invalidate_caches
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What takes long to import, beside ferbench. None of it starts threads, which a fork would lose.
_IMPORTED = ("typer", "torch", "pandas", "PIL.Image", "matplotlib.figure", "rich.progress", "tabulate", "onnxruntime")


def run(*words: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ferbench`` with these words in a folder, with this environment, and return how it ended.

    By the server, unless the environment steers the interpreter itself otherwise than it does this one.
    """
    steered = any(
        environment.get(name) != os.environ.get(name)
        for name in {*environment, *os.environ}
        if name.startswith("PYTHON")
    )
    if steered or not hasattr(os, "fork"):
        command = [sys.executable, "-m", "ferbench", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        call = json.dumps({"words": words, "cwd": str(cwd), "environment": environment}).encode()
        with _lock:
            code = _server().call(call, out.fileno(), err.fileno())
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(["ferbench", *words], code, *texts)


_lock = threading.Lock()


class _Server:
    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd=ROOT)
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._ours.close()  # by which the server learns that nobody will call
        self._process.wait()

    def call(self, call: bytes, out: int, err: int) -> int:
        """Have the server run a call whose output goes to these files, and return its exit code."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out, err]))]
        self._ours.sendmsg([len(call).to_bytes(8)], rights)
        self._ours.sendall(call)
        answer = self._ours.recv(8)
        assert len(answer) == 8, "the server of the command has ended"
        return int.from_bytes(answer, signed=True)


@cache
def _server() -> _Server:
    return _Server()


def _serve(place: int) -> None:
    """Fork for each call that comes, one after the other, until nobody can call any more."""
    import ferbench

    ours = [module.name for module in walk_packages(ferbench.__path__, "ferbench.")]
    # The command line itself reads the environment when it is imported, such as how wide the terminal is.
    for name in (*_IMPORTED, *(name for name in ours if not name.startswith(("ferbench.cli", "ferbench.__main__")))):
        with suppress(ImportError):  # of what an extra brings
            import_module(name)
    sys.path.insert(0, str(ROOT / "tests"))
    from support.torch_vision import define_missing_operators

    define_missing_operators()
    calls = socket.socket(fileno=place)
    while True:
        head, rights, _, _ = calls.recvmsg(8, socket.CMSG_SPACE(2 * array.array("i").itemsize))
        if not head:
            return
        streams = array.array("i", rights[0][2])
        content = b""
        while len(content) < int.from_bytes(head):
            content += calls.recv(int.from_bytes(head) - len(content))
        child = os.fork()
        if not child:
            calls.close()
            _carry_out(json.loads(content), *streams)
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        calls.sendall(code.to_bytes(8, signed=True))


def _carry_out(call: dict[str, Any], out: int, err: int) -> None:
    """Be ``python -m ferbench``, to the end of this process."""
    code: Any = 1
    try:
        os.chdir(call["cwd"])
        os.environ.clear()
        os.environ.update(call["environment"])
        for stream, place in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(stream, place)
            os.close(stream)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        sys.argv, sys.path[0], tempfile.tempdir = ["", *call["words"]], call["cwd"], None
        invalidate_caches()
        runpy.run_module("ferbench", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
