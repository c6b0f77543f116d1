"""The command line of the pipeline: settings in, headline metrics and the report's place out."""

from __future__ import annotations

import argparse
import atexit
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from prefect import Flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    CliToggleFlag,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from cxrmodel.config import PipelineConfig, Stage
from cxrmodel.settings import explain
from cxrmodel.store import Artifact, Store
from flows import terminal
from flows.dry_run import Stages, describe_run
from flows.own_server import own_server
from tasks.records import records_beside

T = TypeVar("T")

USAGE = "%(prog)s [--config FILE] [--dry-run] [--SETTING VALUE ...]"
EXIT_BAD_SETTINGS = 2


class Request(NamedTuple):
    """What the command line asks for."""

    config: PipelineConfig
    refresh: tuple[Stage, ...]
    dry_run: bool


Pipeline = Flow[[PipelineConfig, tuple[Stage, ...]], Artifact]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with a usage that fits on a line: each setting has a paragraph of its own below."""

    def add_usage(self, usage: str | None, *arguments: Any, **options: Any) -> None:
        super().add_usage(usage or USAGE, *arguments, **options)

    def add_argument(self, action: argparse.Action) -> None:
        if action.dest == "refresh":
            action.metavar = "STAGE"
        super().add_argument(action)


class _CommandLine(PipelineConfig, BaseSettings):
    """Learn from chest X-rays: index, decode, split, train, encode, classify, report.

    A setting that neither a flag nor the file of --config gives has its default:
    the notebook's method with a split by patient, on synthetic films. What was run
    before with the same settings, input and code is not run again.

    Examples:
      python flows/main.py --config configs/fast.yaml --data.root /data/ChestXray14
      python flows/main.py --config configs/fast.yaml --vae.epochs 3 --dry-run
      python flows/main.py --config configs/fast.yaml --refresh vae
    """

    model_config = SettingsConfigDict(
        cli_prog_name="python flows/main.py",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
        nested_model_default_partial_update=True,
    )

    config: Path | None = None
    """YAML file of settings, such as configs/fast.yaml; flags override what it says."""

    refresh: list[Stage] | None = None
    """Run this stage again even where its result is cached: index, images, split, vae, latents,
    classifier, baselines or report. May be given several times."""

    dry_run: CliToggleFlag[bool] = Field(False, alias="dry-run")
    """Say what would run, what is cached and what it costs (bytes to read, disk, memory, time),
    and stop. The data set is listed, indexed and split in a temporary folder; nothing is written
    to the store or to scratch."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line, then the YAML file; never the environment."""
        arguments = init_settings.init_kwargs["_arguments"]  # type: ignore[attr-defined]
        command_line: CliSettingsSource[Any] = CliSettingsSource(
            settings_cls, cli_parse_args=arguments, formatter_class=_Help
        )
        return command_line, YamlConfigSettingsSource(settings_cls, _config_file(arguments))


def _config_file(arguments: list[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    path: Path | None = parser.parse_known_args(arguments)[0].config
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path.absolute()}")
    return path


def parse(arguments: list[str]) -> Request:
    """Return the settings, the stages to refresh, and whether only to plan.

    Raises:
        FileNotFoundError: The configuration file does not exist.
        ValidationError: A setting is unknown or has an impossible value.
    """
    settings = _CommandLine(_arguments=arguments)  # type: ignore[call-arg]
    sections = {name: getattr(settings, name) for name in PipelineConfig.model_fields}
    return Request(PipelineConfig(**sections), tuple(settings.refresh or ()), settings.dry_run)


def run(pipeline: Pipeline, stages: Stages) -> None:
    """Run the pipeline as the command line says, or say what that would do, and exit."""
    with terminal.command("stopped"):
        try:
            request = parse(sys.argv[1:])
        except (FileNotFoundError, SettingsError, ValidationError, yaml.YAMLError) as error:
            terminal.fail(_explain(error), EXIT_BAD_SETTINGS)
    if request.dry_run:
        with terminal.command("stopped; nothing was written"):
            print(_attempt(lambda: describe_run(request.config, request.refresh, stages)))
        return
    with terminal.command("stopped; the same command goes on from here") as endings:
        report = _attempt(lambda: _run(pipeline, request, endings))
        _print_result(report, Store(request.config.store.root, request.config.store.scratch))


def _run(pipeline: Pipeline, request: Request, endings: terminal.Endings) -> Artifact:
    def stop_on_signals(flow: object, flow_run: object, state: object) -> None:
        endings.handle()

    context = ExitStack()
    context.enter_context(temporary_settings(updates={PREFECT_SERVER_ANALYTICS_ENABLED: False}))
    context.enter_context(own_server(Path(request.config.store.scratch)))
    context.enter_context(records_beside(request.config.store))
    # Prefect sends its last logs and events when the interpreter ends, and before this is called.
    atexit.register(context.close)
    run_pipeline = pipeline.with_options(on_running=[stop_on_signals])
    return run_pipeline(request.config, request.refresh)


def _attempt(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the trace is in Prefect's log above
        terminal.fail(_explain(error))


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return explain(error)
    return str(error) or type(error).__name__


def _print_result(report: Artifact, store: Store) -> None:
    width = max(len(name) for name in report.summary) + 2
    for name, value in report.summary.items():
        print(f"{name + ':':<{width}}{_readable(value)}")
    print(f"report: {store.uri(report, 'report.html')}")


def _readable(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flow_run_name() -> str:
    """Name the flow run that is starting."""
    return run_name(flow_run.parameters["config"])


def run_name(config: PipelineConfig) -> str:
    """Name a run by its data set, split and preset."""
    return f"{Path(config.data.root).name}-{config.split.method}-{config.preset}"
