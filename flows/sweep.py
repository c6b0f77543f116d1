"""Compare settings over several seeds: `python flows/sweep.py --help` shows how."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

import sys

from prefect import flow
from prefect.runtime import flow_run
from pydantic_settings.exceptions import SettingsError

from cxrmodel.report.comparison.sweep import FailedRun, SweptRun
from cxrmodel.storage.layout import REPORT_FILE
from cxrmodel.storage.store import Store
from cxrmodel.sweep_config import SweepConfig, SweepRun
from flows.command_line import EXIT_BAD_SETTINGS, attempt, served
from flows.dry_run import describe_sweep
from flows.main import run_stages, train_pipeline
from flows.sweep_file import HELP, read_command
from tasks.engine.progress import show_library_logs
from tasks.sweep import write_sweep_page


def _run_name() -> str:
    return str(flow_run.parameters["config"].name)


@flow(name="cxrmodel-sweep", flow_run_name=_run_name, persist_result=False)
def sweep_settings(config: SweepConfig) -> dict[str, str]:
    """Train several settings with several seeds each, choose one on validation, and write a page.

    The trainings run one after the other within this run, so that it takes one place of its pool;
    what several of them share runs once. One that fails is named in the page, the others go on, and
    the sweep fails at its end.

    Args:
        config: What to compare.

    Returns:
        The chosen setting and the place of the page, by what it is.
    """
    show_library_logs()
    store = Store(config.base.store.root, config.base.store.scratch)
    ended = [_train(run, store) for run in config.runs()]
    finished = [run for run in ended if isinstance(run, SweptRun)]
    failed = [run for run in ended if isinstance(run, FailedRun)]
    done = write_sweep_page(config, finished, failed)
    if "failed" in done:
        raise RuntimeError(f"{done['failed']}. The others are on the page {done['page']}")
    return done


def _train(run: SweepRun, store: Store) -> SweptRun | FailedRun:
    # With a name of its own: the notices of finished reports are not for each of these.
    pipeline = train_pipeline.with_options(
        name="cxrmodel-sweep-training", flow_run_name=f"{run.setting}, seed {run.seed}"
    )
    state = pipeline(run.config, return_state=True)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        return FailedRun(run.setting, run.seed, str(error) or type(error).__name__)
    report, bundle = state.result()
    return SweptRun(run.setting, run.seed, store.uri(report, REPORT_FILE), store.uri(bundle))


def main(arguments: list[str]) -> None:
    """Run the sweep that the command line names, or say what that would do, and exit."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return
    with terminal.command("stopped; the same command goes on from here") as endings:
        try:
            config, is_dry_run = read_command(arguments)
        except SettingsError as error:
            terminal.fail(str(error), EXIT_BAD_SETTINGS)
        if is_dry_run:
            print(attempt(lambda: describe_sweep(config, run_stages)))
            return
        run_sweep = served(sweep_settings, config.base.store, endings)
        done = attempt(lambda: run_sweep(config))
        terminal.print_named(done)


if __name__ == "__main__":
    main(sys.argv[1:])
