"""The two operations of ``kernels`` as Triton kernels: products on tensor cores, each value read and written once.

A program computes BLOCK_M pixels × BLOCK_N maps of one network; the last axis of the grid counts networks. Sums are in
fp32. Addresses have 64 bits, because four thousand images of ``paper`` have more than 2³¹ values in a block. The number
of pixels of a program is tuned on the device at the first call of each order of magnitude.

Importing this needs the package triton (``ferbench[triton]``); with TRITON_INTERPRET=1 it runs on a CPU, for tests.
"""

import math
import os
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# BLOCK_M, BLOCK_K, warps, stages. With one stage, a 3×3 convolution reads from the L1 cache what its other taps have
# read; with more stages several reads are in flight.
_SHAPES = [(128, 32, 4, 3), (128, 64, 8, 3), (64, 64, 4, 4), (32, 64, 4, 4), (16, 128, 4, 4)]
_SHAPES3 = [(128, 16, 4, 1), (128, 64, 4, 1), (128, 64, 8, 3), (64, 64, 4, 4), (32, 64, 4, 4), (16, 128, 4, 4)]
_MANY = 1 << 15  # number of pixels from which programs of 64 and more occupy a whole GPU
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # then nothing is timed
_ONE_AT_A_TIME = Lock()  # parallel trainings are threads, and Triton's tuner stores the arguments of a call


def _tried(shapes: list[tuple[int, int, int, int]]) -> list[triton.Config]:
    return [
        triton.Config({"BLOCK_M": m, "BLOCK_K": k}, num_warps=warps, num_stages=stages)
        for m, k, warps, stages in (shapes[:1] if _INTERPRETED else shapes)
    ]


def _by_size(configs: list[triton.Config], given: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Large programs for many pixels, small ones for few."""
    many = given["pixels"] >= _MANY
    return [
        config for config in configs if (config.kwargs["BLOCK_M"] >= 64 if many else config.kwargs["BLOCK_M"] <= 64)
    ]


_PRUNED = {"early_config_prune": _by_size}


@triton.autotune(_tried(_SHAPES), key=["magnitude", "BLOCK_N", "POOL"], prune_configs_by=_PRUNED)
@triton.jit(do_not_specialize=["pixels", "width", "channels", "magnitude"])
def _pointwise(
    x,
    scale,
    shift,
    weight,
    bias,
    out,
    x_net,
    x_row,
    out_net,
    out_row,
    pixels,
    width,
    channels,
    columns,
    magnitude,
    OUTPUTS: tl.constexpr,
    POOL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    net = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    padded = (channels + 15) // 16 * 16  # whole 16-byte words are read; the padding behind the channels counts as 0
    line, column = rows // width, rows % width
    total = tl.full([BLOCK_M, BLOCK_N], 0.0, tl.float32)
    for start in range(0, padded, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        s = tl.load(scale + net * padded + k, mask=k < padded, other=0.0)
        b = tl.load(shift + net * padded + k, mask=k < padded, other=0.0)
        active = tl.full([BLOCK_M, BLOCK_K], 0.0, tl.float32)
        for place in tl.static_range(POOL * POOL):
            pixel = (line * POOL + place // POOL) * (width * POOL) + column * POOL + place % POOL
            there = (rows < pixels)[:, None] & (k < padded)[None, :]
            value = tl.load(x + net * x_net + pixel.to(tl.int64)[:, None] * x_row + k[None, :], mask=there, other=0.0)
            active += tl.maximum(value.to(tl.float32) * s[None, :] + b[None, :], 0.0)
        active = tl.where(k[None, :] < channels, active / (POOL * POOL), 0.0)
        there = (k < padded)[:, None] & (n < columns)[None, :]
        w = tl.load(weight + (net * padded + k[:, None]) * columns + n[None, :], mask=there, other=0.0)
        total = tl.dot(active.to(w.dtype), w, total, input_precision="ieee")
    total += tl.load(bias + net * columns + n, mask=n < columns, other=0.0)[None, :]
    if RELU:
        total = tl.maximum(total, 0.0)
    there = (rows < pixels)[:, None] & (n < OUTPUTS)[None, :]
    tl.store(
        out + net * out_net + rows.to(tl.int64)[:, None] * out_row + n[None, :],
        total.to(out.dtype.element_ty),
        mask=there,
    )


@triton.autotune(_tried(_SHAPES3), key=["magnitude", "BLOCK_N", "STRIDE"], prune_configs_by=_PRUNED)
@triton.jit(do_not_specialize=["pixels", "height", "width", "magnitude"])
def _conv3(
    x,
    weight,
    out,
    x_net,
    x_row,
    out_net,
    out_row,
    pixels,
    height,
    width,
    channels,
    columns,
    magnitude,
    OUTPUTS: tl.constexpr,
    ALIGNED: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    net = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    line, column = rows // width, rows % width
    image, y = line // height, line % height
    parts = (channels + BLOCK_K - 1) // BLOCK_K
    total = tl.full([BLOCK_M, BLOCK_N], 0.0, tl.float32)
    for step in range(9 * parts):
        tap = step // parts
        k = step % parts * BLOCK_K + tl.arange(0, BLOCK_K)
        above, left = y * STRIDE + tap // 3 - 1, column * STRIDE + tap % 3 - 1
        inside = (above >= 0) & (above < height * STRIDE) & (left >= 0) & (left < width * STRIDE) & (rows < pixels)
        pixel = (image * height * STRIDE + above) * (width * STRIDE) + left
        there = inside[:, None] & (k < channels)[None, :]
        place = x + net * x_net + pixel.to(tl.int64)[:, None] * x_row + k[None, :]
        value = tl.load(place, mask=there, other=0.0, cache_modifier=".ca")  # eight more taps read it
        there = (k < channels)[:, None] & (n < columns)[None, :]
        w = tl.load(weight + ((net * 9 + tap) * channels + k[:, None]) * columns + n[None, :], mask=there, other=0.0)
        total = tl.dot(value, w, total, input_precision="ieee")
    there = (rows < pixels)[:, None] & (n < OUTPUTS)[None, :]
    place = out + net * out_net + rows.to(tl.int64)[:, None] * out_row + n[None, :]
    tl.store(tl.multiple_of(place, [1, ALIGNED]), total.to(out.dtype.element_ty), mask=there)


def pointwise(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    channels: int,
    relu: bool = False,
    pool: int = 1,
) -> None:
    """:func:`kernels.pointwise`."""
    pixels = _pixels(out)
    with _ONE_AT_A_TIME, torch.cuda.device_of(x):
        _pointwise[_grid(x, out)](
            x,
            scale,
            shift,
            weight,
            bias,
            out,
            x.stride(0),
            x.stride(3),
            out.stride(0),
            out.stride(3),
            pixels,
            out.shape[3],
            channels,
            weight.shape[2],
            _magnitude(len(x) * pixels, channels),
            OUTPUTS=out.shape[4],
            POOL=pool,
            RELU=relu,
            BLOCK_N=_block(out),
        )


def conv3(x: Tensor, weight: Tensor, out: Tensor, stride: int = 1) -> None:
    """:func:`kernels.conv3`."""
    pixels, channels, outputs = _pixels(out), weight.shape[2], out.shape[4]
    with _ONE_AT_A_TIME, torch.cuda.device_of(x):
        _conv3[_grid(x, out)](
            x,
            weight,
            out,
            x.stride(0),
            x.stride(3),
            out.stride(0),
            out.stride(3),
            pixels,
            out.shape[2],
            out.shape[3],
            channels,
            weight.shape[3],
            _magnitude(len(x) * pixels, channels),
            OUTPUTS=outputs,
            ALIGNED=math.gcd(16, out.data_ptr(), outputs * out.element_size()),
            STRIDE=stride,
            BLOCK_N=_block(out),
        )


def _grid(x: Tensor, out: Tensor) -> Callable[[dict[str, int]], tuple[int, int, int]]:
    """Programs by pixels, maps and networks."""
    maps = triton.cdiv(out.shape[4], _block(out))
    return lambda shape: (triton.cdiv(_pixels(out), shape["BLOCK_M"]), maps, len(x))


def _pixels(out: Tensor) -> int:
    """Pixels of one network's maps."""
    return out.shape[1] * out.shape[2] * out.shape[3]


def _block(out: Tensor) -> int:
    """Maps of a program: all maps of a dense layer, a part of those of a transition. Tensor cores need at least 16."""
    return min(128, max(16, triton.next_power_of_2(out.shape[4])))


def _magnitude(pixels: int, channels: int) -> int:
    """A number that is equal for calls of similar size, which share the tuned shape of programs."""
    return 2 * pixels.bit_length() + (channels > 96)
