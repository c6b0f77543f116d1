"""Training of the autoencoder by several processes, each with its part of every batch."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrmodel.cluster.session import ClusterError, Workers, device_here
from cxrmodel.config import VAEConfig
from cxrmodel.errors import CxrModelError
from cxrmodel.progress import Progress, ReportProgress
from cxrmodel.training.checkpoint_copies import CheckpointCopies
from cxrmodel.training.vae.fit import fit_vae
from cxrmodel.training.vae.world import World

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

MAX_FAILURES = 3  # workers that may die before the training is given up
POLL_S = 1.0
OWN_ERRORS = (CxrModelError, OSError, ValueError, MemoryError)  # not those of a lost worker
WORLD_LOST = "Another worker died; Ray disconnects the others and starts all of them again."
GRACE_S = 20.0  # an evicted container is given half a minute


@dataclass(frozen=True)
class TrainingJob:
    """A training, described so that any machine of the cluster can take part in it.

    Attributes:
        config: Loss and training; `batch_size` is that of all workers together.
        open_pixels: Opens the images on the machine that calls it.
        open_split: Returns the folder of the split stage there.
        checkpoints: Folder for the state of the training; only the first worker uses it.
        copies: Where to keep copies of that state, for a first worker on another machine.
    """

    config: VAEConfig
    open_pixels: Callable[[], Pixels]
    open_split: Callable[[], Path]
    checkpoints: Path
    copies: CheckpointCopies | None = None


class Stopped(BaseException):
    """The flow that started the training is being stopped; not an error of the training."""


class Mailbox:
    """Carries messages between the first worker and the flow; a process of the cluster."""

    def __init__(self) -> None:
        self._progress: list[Progress] = []
        self._stop = False
        self._outcome: tuple[dict[str, bytes], dict[str, Any]] | Exception | None = None

    def tell(self, progress: Progress) -> bool:
        """Leave the progress of the training; return whether it should stop."""
        self._progress = [progress]
        return self._stop

    def progress(self) -> list[Progress]:
        """Return what has been told since the last call: nothing, or the latest progress."""
        progress, self._progress = self._progress, []
        return progress

    def stop(self) -> None:
        """Ask the training to stop."""
        self._stop = True

    def deliver(self, outcome: tuple[dict[str, bytes], dict[str, Any]] | Exception) -> None:
        """Leave the files and the summary of the training, or the error that it ended with."""
        self._outcome = outcome

    def outcome(self) -> tuple[dict[str, bytes], dict[str, Any]] | Exception | None:
        """Return what has been delivered."""
        return self._outcome


def fit_vae_on_cluster(
    job: TrainingJob, workers: Workers, directory: Path, *, scratch: Path, report: ReportProgress
) -> dict[str, Any]:
    """Train with Ray Train; see `fit_vae` for what is trained and written.

    With the same batch the weights agree with those of one process to float tolerance. A worker
    that dies is replaced, and training goes on from its last checkpoint.

    Args:
        job: The training.
        workers: Processes and what each is given.
        directory: Where the files of the stage go, on this machine.
        scratch: Folder for Ray's own files.
        report: Called with the progress of the training.

    Raises:
        ClusterError: Workers died too often.
        CxrModelError: As `fit_vae` raises it.
    """
    import ray  # noqa: PLC0415 - an extra
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    gpus = {"GPU": workers.gpus} if workers.gpus else {}
    trainer = TorchTrainer(
        _train,
        train_loop_config={"job": job, "workers": workers, "mailbox": mailbox},
        scaling_config=ScalingConfig(
            num_workers=workers.number,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus, **gpus},
        ),
        run_config=RunConfig(
            storage_path=str(scratch / "ray"), failure_config=FailureConfig(MAX_FAILURES)
        ),
    )
    with _reporting(mailbox, report):
        _fit(trainer, mailbox)
    outcome = ray.get(mailbox.outcome.remote())
    if isinstance(outcome, Exception):
        raise outcome
    files, summary = outcome
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return dict(summary)


def _fit(trainer: Any, mailbox: Any) -> None:
    """Train from another thread: Ray swallows what a signal raises while it waits."""
    import ray  # noqa: PLC0415
    from ray.train import TrainingFailedError  # noqa: PLC0415

    fitted: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            fitted.set_exception(error)
        else:
            fitted.set_result(None)

    threading.Thread(target=fit, daemon=True).start()
    try:
        fitted.result()
    except TrainingFailedError as error:
        raise ClusterError(f"Workers died more than {MAX_FAILURES} times: {error}") from error
    except BaseException:  # a cancelled flow raises one that is no Exception
        ray.get(mailbox.stop.remote())
        wait([fitted], GRACE_S)  # for the last checkpoint, and for Ray to finish its call
        raise


@contextmanager
def _reporting(mailbox: Any, report: ReportProgress) -> Iterator[None]:
    """Pass on what the first worker tells, from another thread."""
    import ray  # noqa: PLC0415

    done = threading.Event()

    def pass_on() -> None:
        while not done.wait(POLL_S):
            for progress in ray.get(mailbox.progress.remote()):
                report(progress)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _train(given: dict[str, Any]) -> None:
    """Take part in a training; each worker runs this."""
    import ray  # noqa: PLC0415

    job, workers, mailbox = given["job"], given["workers"], given["mailbox"]
    if isinstance(ray.get(mailbox.outcome.remote()), Exception):
        return  # Ray has started all workers again; another attempt would end in the same way
    world = World.joined()
    if world.size != workers.number:
        raise RuntimeError(WORLD_LOST)

    def tell(progress: Progress) -> None:
        if ray.get(mailbox.tell.remote(progress)):
            raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        try:
            summary = fit_vae(
                job.config,
                job.open_pixels(),
                job.open_split(),
                Path(folder),
                checkpoints=job.checkpoints,
                copies=job.copies,
                device=device_here(workers),
                num_threads=workers.cpus,
                world=world,
                report=tell,
            )
        except Stopped:
            ray.get(mailbox.deliver.remote(ClusterError("The training was stopped.")))
            raise
        except OWN_ERRORS as error:
            if World.joined() != world:
                raise RuntimeError(WORLD_LOST) from error
            ray.get(mailbox.deliver.remote(error))
            raise
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    if summary:  # of the first worker
        ray.get(mailbox.deliver.remote((files, summary)))
