"""Where training runs, in which arithmetic, and how repeatably."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

if TYPE_CHECKING:
    from cxrmodel.config import Precision

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")

CPU_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # names of Intel and AMD; the last is Arm's
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_FOR_BATCHES = 8
NEVER = -1
LARGEST_MMAP_THRESHOLD_BYTES = 1 << 30
DEFAULT_MMAP_THRESHOLD_BYTES = 32 << 20  # what glibc's own adjustment reaches at most
DEFAULT_TRIM_THRESHOLD_BYTES = 64 << 20


def available_devices() -> list[str]:
    """Name the devices of this machine, the best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the best there is.

    Raises:
        ValueError: The machine has no such device.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    if name == "cuda" and "cuda:0" in available:
        return torch.device("cuda:0")
    if name not in available:
        raise ValueError(
            f"The device is {name!r}, and this machine has {', '.join(available)}. "
            "Choose one of these, or 'auto'."
        )
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Say whether the hardware computes in bfloat16 itself, without emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in CPU_BFLOAT16)
    return False


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return the arithmetic to use; `auto` is bfloat16 where the hardware has it."""
    native = has_bfloat16(device)
    if precision == "auto":
        return "bfloat16" if native else "float32"
    if precision == "bfloat16" and not native:
        logger.warning(
            "%s emulates bfloat16, slower than float32. Precision 'auto' would choose float32.",
            device,
        )
    return precision


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether a device refused memory; a CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return a context in which matrix arithmetic is of that precision; weights stay float32."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"
    )
    return context


@contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Use kernels that give the same bits each time, and restore the process's settings.

    On a CPU all kernels do, for a given number of threads.
    """
    if device.type != "cuda":
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    workspace = os.environ.get(CUBLAS_WORKSPACE)
    os.environ[CUBLAS_WORKSPACE] = workspace or ":4096:8"  # else cuBLAS is not deterministic
    torch.use_deterministic_algorithms(True)  # cuDNN's too
    torch.backends.cudnn.benchmark = False  # it may choose another kernel each time
    # Else PyTorch first fills every new tensor, with an extra kernel.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        torch.utils.deterministic.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]
        if workspace is None:
            del os.environ[CUBLAS_WORKSPACE]


@contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep freed activations for the next step, on a CPU with glibc.

    By default it returns each to the kernel, which hands it out again page by page, zeroed: a fifth
    of a training step at 1024 px. Everything is given back at the end. Elsewhere this does nothing.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if device.type != "cpu" or libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_THRESHOLD, DEFAULT_MMAP_THRESHOLD_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD_BYTES)
        libc.malloc_trim(0)


def keeping_memory(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Pass batches on; freed memory is kept for the next, and given back after every eighth.

    Where other threads allocate what this one frees, memory that is kept for long grows with the
    number of images: each thread has an arena of its own.
    """
    for _, together in groupby(enumerate(batches), lambda pair: pair[0] // KEPT_FOR_BATCHES):
        with keep_freed_memory(device):
            yield from (batch for _, batch in together)
