"""Devices with their precision and their training engine.

Methods load torch when they are called: plans of methods that compute without it load none.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from shutil import which
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ferbench.errors import UsageError
from ferbench.files import cache_home
from ferbench.training.schedule import check_device

if TYPE_CHECKING:
    from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD
_BF16 = ("avx512_bf16", "amx_bf16")  # instructions without which bfloat16 is emulated, slower than fp32


@dataclass(frozen=True)
class Device:
    """A device with a precision and an engine.

    Precision: "fp32" is IEEE single precision; "tf32" permits NVIDIA's tensor cores to round the factors of products;
    "bf16" computes convolutions and products in bfloat16, but weights, batch statistics, distances and losses in fp32.
    Engine: "plain" computes derived samples and attention maps at every step, operation by operation; "fast" looks them
    up in tables if that saves time, and on CUDA replays each step as one captured graph; "compiled" also compiles
    networks by ``torch.compile``, which takes minutes the first time and saves time for wide networks; "searched" also
    lets cuDNN time its algorithms at each new shape and choose the fastest, even if it is not repeatable.
    The same machine, versions and settings give the same bytes with "plain" and "fast". "compiled" uses repeatable
    algorithms too, but its kernels may be chosen by timing; "searched" guarantees accuracy only. For a method that
    compiles nothing (:meth:`compiled`) all engines but "plain" are equal to "fast".
    """

    name: str = "cpu"
    precision: str = "fp32"
    engine: str = "plain"

    @classmethod
    def chosen(cls, name: str, precision: str, engine: str = "auto", here: bool = True) -> "Device":
        """Resolve "auto" and configure the process for repeatable arithmetic and, on a CPU, to reuse freed memory.

        "auto" is CUDA if it is available; bf16 on CPUs with instructions for it, otherwise fp32; the fast engine on
        CPUs, where its bytes are tested.

        here : whether this process computes on it; otherwise it may be missing here.
        Raises UsageError for a missing device or a precision that it does not support.
        """
        import torch

        check_device(name, precision, engine)
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if here and name == "cuda" and not torch.cuda.is_available():
            raise UsageError("no CUDA device is usable here: leave --device out, or take --device cpu")
        if precision == "auto":
            precision = "bf16" if name == "cpu" and has_bf16() else "fp32"
        if engine == "auto":
            engine = "fast" if name == "cpu" else "plain"
        check_device(name, precision, engine)
        if here and engine == "compiled" and name == "cpu" and not which(compiler := _compiler()):
            raise UsageError(
                f"--engine compiled needs a C++ compiler, and {compiler} is not installed: install one, or "
                "take --engine fast"
            )
        # These names, since torch.export cannot read the state that the newer fp32_precision leaves behind.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.deterministic = engine != "searched"
        torch.backends.cudnn.benchmark = engine == "searched"
        if name == "cpu":
            keep_freed_memory()
        return cls(name, precision, engine)

    @property
    def rows(self) -> int:
        """Images in a batch of what trainings learn from, such as attention maps. Predictions have
        ``arithmetic.ROWS``.

        The size is constant, because libraries select kernels by size, which may change the rounding.
        """
        return 512 if self.name == "cuda" else 128

    @property
    def looks_up(self) -> bool:
        """Whether derived samples and maps come from tables if that saves time."""
        return self.engine != "plain"

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled before their first step."""
        return self.engine in ("compiled", "searched")

    @property
    def captures(self) -> bool:
        """Whether a step is replayed as one captured graph."""
        return self.looks_up and self.name == "cuda"

    def compiled(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call of a network for training steps: compiled if the engine compiles, with a cache on disk."""
        if not self.compiles:
            return call
        import torch

        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_home() / "inductor"))
        return torch.compile(call, dynamic=False)

    def autocast(self) -> AbstractContextManager:
        """The context in which networks are called."""
        import torch

        if self.precision == "bf16":
            return torch.autocast(self.name, torch.bfloat16)
        return nullcontext()

    @contextmanager
    def threads(self, most: int) -> Iterator[None]:
        """Use at most ``most`` CPU threads within the block; 0: all."""
        import torch

        before = torch.get_num_threads()
        if most and self.name == "cpu":
            torch.set_num_threads(min(before, most))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def in_precision(self, module: "nn.Module") -> "nn.Module":
        """Convert the weights of a network that is called without :meth:`autocast`."""
        import torch

        return module.to(torch.bfloat16) if self.precision == "bf16" else module

    def place(self, module: "nn.Module") -> "nn.Module":
        """Move a network to the device, in the memory order that convolutions prefer (channels last)."""
        import torch

        return module.to(self.name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def images(self, images: "Tensor") -> "Tensor":
        """Return a batch of images in the memory order of :meth:`place`."""
        import torch

        return images.contiguous(memory_format=torch.channels_last)


def has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16."""
    import torch

    return any(torch.cpu.get_capabilities().get(instructions) for instructions in _BF16)


def _compiler() -> str:
    """The C++ compiler that torch.compile starts."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def keep_freed_memory() -> None:
    """Configure glibc to keep freed memory for the tensors of the next step, which have the same sizes.

    By default it returns large tensors to the system and allocates them again at the next step, with a page fault for
    every 4 KiB: some 65,000 in a step of 16 images of ``full``, more than a quarter of its time. No value changes.
    Other C libraries are not affected.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
