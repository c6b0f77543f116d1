"""The command line of the pipeline: settings in, headline metrics and the report's place out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from cxrmodel.config import PipelineConfig, Stage
from cxrmodel.store import Artifact, Store
from tasks.records import records_beside

EXIT_FAILED, EXIT_BAD_SETTINGS, EXIT_INTERRUPTED = 1, 2, 130

Pipeline = Callable[[PipelineConfig, tuple[Stage, ...]], Artifact]


class _CommandLine(PipelineConfig, BaseSettings):
    """Learn from chest X-rays: index, decode, split, train, encode, classify, report."""

    model_config = SettingsConfigDict(
        cli_prog_name="python flows/main.py",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
    )

    config: Path | None = None
    """YAML file of settings; flags on the command line override it."""

    refresh: list[Stage] = Field(default_factory=list)
    """Stage to run again even where its result is cached; may be given several times."""

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
        command_line = CliSettingsSource(settings_cls, cli_parse_args=arguments)
        return command_line, YamlConfigSettingsSource(settings_cls, _config_file(arguments))


def _config_file(arguments: list[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    path: Path | None = parser.parse_known_args(arguments)[0].config
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path.absolute()}")
    return path


def parse(arguments: list[str]) -> tuple[PipelineConfig, tuple[Stage, ...]]:
    """Return the settings and the stages to refresh.

    Raises:
        FileNotFoundError: The configuration file does not exist.
        ValidationError: A setting is unknown or has an impossible value.
    """
    settings = _CommandLine(_arguments=arguments)
    sections = {name: getattr(settings, name) for name in PipelineConfig.model_fields}
    return PipelineConfig(**sections), tuple(settings.refresh)


def run(pipeline: Pipeline) -> None:
    """Run the pipeline as the command line says, and exit."""
    try:
        config, refresh = parse(sys.argv[1:])
    except (FileNotFoundError, SettingsError, ValidationError, yaml.YAMLError) as error:
        _fail(_explain(error), EXIT_BAD_SETTINGS)
    with _prefect_for_one_run(config):
        try:
            report = pipeline(config, refresh)
        except KeyboardInterrupt:
            _fail("stopped; the same command goes on from here", EXIT_INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the trace is in Prefect's log above
            _fail(_explain(error), EXIT_FAILED)
    _print_result(report, Store(config.store.root, config.store.scratch))


@contextmanager
def _prefect_for_one_run(config: PipelineConfig) -> Iterator[None]:
    settings = {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
    }
    with temporary_settings(updates=settings), records_beside(config.store):
        yield


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "\n".join(
            f"--{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
            for detail in error.errors()
        )
    return str(error) or type(error).__name__


def _fail(message: str, code: int) -> None:
    sys.stderr.flush()
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


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
    """Name a flow run by its data set and split."""
    config: PipelineConfig = flow_run.parameters["config"]
    return f"{Path(config.data.root).name}-{config.split.method}"
