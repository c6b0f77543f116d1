"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from cxrmodel.errors import CxrModelError

LOCAL = "local"
LOOPBACK = "127.0.0.1"


class ClusterError(CxrModelError):
    """Ray is not installed, or its cluster cannot do the work."""


@dataclass(frozen=True)
class Workers:
    """The processes of a stage, and what each of them is given.

    Attributes:
        number: How many there are.
        cpus: Cores of each.
        gpus: GPUs of each, 0 or 1.
    """

    number: int
    cpus: int
    gpus: int


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster for the time of the context.

    Args:
        address: `local` starts one on this machine, on the loopback interface, and stops it
            afterwards; `auto` joins the one that this machine belongs to, `host:port` another.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report over the network
    try:
        import ray  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ClusterError(
            f"runtime.ray_address is {address!r}, and Ray is not installed. Install cxrmodel[ray]."
        ) from error
    is_local = address == LOCAL
    place = {"_node_ip_address": LOOPBACK} if is_local else {"address": address}
    try:
        with _termination_handler_kept():
            ray.init(
                **place,
                include_dashboard=False if is_local else None,
                logging_level=logging.WARNING,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"No Ray cluster at runtime.ray_address {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _termination_handler_kept() -> Iterator[None]:
    """Undo what Ray does to SIGTERM: its handler aborts the process three seconds later.

    A training that is cancelled needs longer to leave its checkpoint.
    """
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def divide(device: str, number: int | None) -> Workers:
    """Divide the cluster among equal workers.

    Args:
        device: `auto`, `cpu`, `cuda`; `auto` takes GPUs where the cluster has any.
        number: Workers asked for; None: one per GPU, or one per machine if there is no GPU.

    Raises:
        ClusterError: The cluster has too few cores or GPUs for so many workers.
    """
    import ray  # noqa: PLC0415

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    on_gpu = device.startswith("cuda") or (device == "auto" and gpus > 0)
    if on_gpu and not gpus:
        raise ClusterError(
            f"runtime.device is {device!r}, and the Ray cluster has no GPU. Set it to 'auto' or "
            "'cpu', or join another cluster with runtime.ray_address."
        )
    machines = sum(node["Alive"] for node in ray.nodes())
    workers = number or (gpus if on_gpu else max(1, min(machines, cpus)))
    if workers > (gpus if on_gpu else cpus):
        raise ClusterError(
            f"runtime.ray_workers is {workers}, and the cluster has {cpus} cores and {gpus} GPUs. "
            "Each worker needs one of its own."
        )
    return Workers(workers, max(1, cpus // workers), int(on_gpu))


def device_here(workers: Workers) -> str:
    """Return the device of the worker that calls this; Ray shows it only its own GPU.

    Raises:
        ClusterError: The cluster gave the worker a GPU that PyTorch does not see.
    """
    if not workers.gpus:
        torch.set_num_threads(workers.cpus)
        return "cpu"
    if not torch.cuda.is_available():
        raise ClusterError("Ray gave this worker a GPU, and PyTorch sees none: check its build.")
    return "cuda"
