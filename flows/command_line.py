"""The command line of the pipeline: settings in, headline metrics and the report's place out."""

from __future__ import annotations

import argparse
import atexit
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar, get_args

from prefect import Flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    CliToggleFlag,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from cxrmodel.config import PipelineConfig, Stage, StoreConfig
from cxrmodel.settings import did_you_mean, explain, not_one_of, problems_of, setting_names
from cxrmodel.storage.layout import REPORT_FILE
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.vae.objective import make_objective
from flows import terminal
from flows.dry_run import Stages, describe_run
from flows.own_server import own_server
from flows.settings_file import SettingsFile, SettingsFileError, read_settings_file
from tasks.engine.records import records_beside

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

USAGE = "%(prog)s [--config FILE] [--dry-run] [--SETTING VALUE ...]"
PROGRAM = "python flows/main.py"
EXIT_BAD_SETTINGS = 2
MAX_CHOICES_CHARS = 50  # of a flag that names its values; others list them in their help
SETTINGS = setting_names(PipelineConfig)
SECTIONS = {name.rpartition(".")[0] for name in SETTINGS if "." in name}
COMMANDS = ("config", "refresh", "dry-run", "help")
STRAY, SURPLUS = "unrecognized arguments: ", re.compile(r"ignored explicit argument ('.*')")
FLAGS = [f"--{name}" for name in (*SETTINGS, *COMMANDS) if name not in SECTIONS]


class Parser(argparse.ArgumentParser):
    """A parser that raises a mistake as one line, with what was probably meant."""

    @property
    def flags(self) -> list[str]:
        """The flags it knows."""
        return [flag for action in self._actions for flag in action.option_strings]

    def refuse(self, unknown: list[str]) -> None:
        """Raise a SettingsError for arguments that the parser does not know."""
        for word in unknown:
            flag = word.partition("=")[0]
            self.error(f"{flag}: there is no such flag{did_you_mean(flag, self.flags)}")

    def error(self, message: str) -> NoReturn:
        """Raise a SettingsError that says where help is."""
        text = message.removeprefix("argument ")
        raise SettingsError(f"{text}\nSee {self.prog} --help for every flag.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, not_one_of(str(value), action.choices))


class Request(NamedTuple):
    """What the command line asks for."""

    config: PipelineConfig
    refresh: tuple[Stage, ...]
    dry_run: bool


Result = tuple[Artifact, Artifact]  # of the report and of the bundle
Pipeline = Flow[..., Result]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with the usage on one line: each setting has its own paragraph below."""

    def add_usage(self, usage: str | None, *arguments: Any, **options: Any) -> None:
        super().add_usage(usage or USAGE, *arguments, **options)

    def add_argument(self, action: argparse.Action) -> None:
        if action.dest == "refresh":
            action.metavar = "STAGE"
        values = str(action.metavar)
        if values.startswith("{") and len(values) > MAX_CHOICES_CHARS:
            action.metavar = "NAME"
            action.help = f"{action.help} One of {values.strip('{}').replace(',', ', ')}."
        super().add_argument(action)


class _CommandLine(PipelineConfig, BaseSettings):
    """Learn from chest X-rays: index, decode, split, train, encode, report, bundle.

    A setting that neither a flag nor the file of --config gives has its default:
    the notebook's method with a split by patient, on synthetic images. What was run
    before with the same settings, input and code is not run again.

    Examples:
      python flows/main.py --config configs/fast.yaml --data.root /data/ChestXray14
      python flows/main.py --config configs/fast.yaml --vae.epochs 3 --dry-run
      python flows/main.py --config configs/fast.yaml --refresh vae
    """

    model_config = SettingsConfigDict(
        cli_prog_name=PROGRAM,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
        nested_model_default_partial_update=True,
    )

    config: Path | None = None
    """YAML file of settings, such as configs/fast.yaml; flags override it. Of a flag given
    twice the last one counts."""

    refresh: list[Stage] | None = Field(
        None,
        description="Run this stage again even where its result is cached: "
        f"{', '.join(get_args(Stage))}. May be given several times.",
    )

    dry_run: CliToggleFlag[bool] = Field(False, alias="dry-run")
    """Say what would run, what is cached and what it needs (bytes to read, disk, memory), and
    stop. The data set is listed, indexed and split in a temporary folder; nothing is written
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
        arguments, file = (init_settings.init_kwargs[name] for name in ("_arguments", "_file"))  # type: ignore[attr-defined]
        command_line: CliSettingsSource[Any] = CliSettingsSource(
            settings_cls, cli_parse_args=arguments, formatter_class=_Help
        )
        return command_line, InitSettingsSource(settings_cls, file.values if file else {})


def _settings_file(arguments: list[str]) -> SettingsFile | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    try:
        given: list[str] = parser.parse_known_args(arguments)[0].config
    except argparse.ArgumentError as error:
        raise SettingsError(str(error)) from error
    if not given:
        return None
    if len(given) > 1:
        raise SettingsError(f"--config is there twice: {' and '.join(given)}. Give one file.")
    if not given[0]:
        raise SettingsError("--config: the name of the file is empty")
    try:
        return read_settings_file(Path(given[0]).expanduser(), SETTINGS)
    except RuntimeError as error:  # there is no such user
        raise SettingsError(f"--config: {error}") from error


def parse(
    arguments: list[str],
    program: str = PROGRAM,
    more_flags: Sequence[str] = (),
    file: SettingsFile | None = None,
) -> Request:
    """Return the settings, the stages to refresh, and whether only to plan.

    Args:
        arguments: Of the command line.
        program: The command, as help is asked of it.
        more_flags: Further flags of the program, for suggestions.
        file: What the flags override, instead of the file of `--config`.

    Raises:
        SettingsError: A setting is unknown or has an impossible value, or the file of `--config`
            cannot be used. The message has a line per problem.
    """
    try:
        _refuse_unknown(arguments, more_flags)
        file = file or _settings_file(arguments)
        settings = _CommandLine(_arguments=arguments, _file=file)  # type: ignore[call-arg]
        sections = {name: getattr(settings, name) for name in PipelineConfig.model_fields}
        config = PipelineConfig(**sections)
        make_objective(config.vae)  # its names are the library's, not the settings' own
    except ValidationError as error:
        raise SettingsError(explain_settings(error, file, arguments)) from error
    except SettingsFileError:
        raise  # help on flags is no help with a file
    except SettingsError as error:
        raise _with_help(error, program) from error
    except ValueError as error:
        raise SettingsError(f"--{error}") from error
    return Request(config, tuple(settings.refresh or ()), settings.dry_run)


def _refuse_unknown(arguments: list[str], more_flags: Sequence[str]) -> None:
    for flag in flags_of(arguments):
        if flag.removeprefix("--") in SECTIONS:
            raise SettingsError(f"{flag} is a section: its settings are given as {flag}.NAME")
        if flag not in FLAGS:
            guess = did_you_mean(flag, [*FLAGS, *more_flags])
            raise SettingsError(f"{flag}: there is no such flag{guess}")


def flags_of(arguments: list[str]) -> list[str]:
    """Return the flags among the words of a command line."""
    return [word.partition("=")[0] for word in arguments if word.startswith("--")]


def _with_help(error: SettingsError, program: str) -> SettingsError:
    text = str(error).removeprefix("error parsing CLI: ").removeprefix("argument ")
    hint = ""
    if text.startswith(STRAY):
        text = f"{text.removeprefix(STRAY)}: it belongs to no flag"
        hint = "; a setting is given as --SECTION.NAME VALUE"
    text = SURPLUS.sub(r"it takes no value, and \1 is given", text)
    if text.endswith("expected one argument"):
        hint = " (a value that begins with a dash is given as in --NAME=-VALUE)"
    return SettingsError(f"{text}{hint}\nSee {program} --help for every setting.")


def explain_settings(
    error: ValidationError, file: SettingsFile | None, arguments: list[str]
) -> str:
    """Return a line per problem: which setting, where it was given, and what is wrong."""
    given = flags_of(arguments)
    of_file = [name for name in (file.lines if file else ()) if f"--{name}" not in given]
    lines = []
    for name, text in problems_of(error, [*SETTINGS, "refresh", "dry-run"]):
        if file and name in of_file:
            lines.append(f"{file.path}, line {file.lines[name]}: {name}: {text}")
        elif file and any(other in text for other in of_file if "." in other):
            lines.append(f"{file.path}: {text}")
        else:
            lines.append(f"--{name}: {text}" if name else text)
    return "\n".join(lines)


def run(pipeline: Pipeline, stages: Stages) -> None:
    """Run the pipeline as the command line says, or say what that would do, and exit."""
    with terminal.command("stopped"):
        try:
            request = parse(sys.argv[1:])
        except SettingsError as error:
            terminal.fail(str(error), EXIT_BAD_SETTINGS)
    if request.dry_run:
        with terminal.command("stopped; nothing was written"):
            print(attempt(lambda: describe_run(request.config, request.refresh, stages)))
        return
    with terminal.command("stopped; the same command goes on from here") as endings:
        report, bundle = attempt(lambda: _run(pipeline, request, endings))
        _print_result(
            report, bundle, Store(request.config.store.root, request.config.store.scratch)
        )


def _run(
    pipeline: Pipeline, request: Request, endings: terminal.Endings
) -> tuple[Artifact, Artifact]:
    run_pipeline = served(pipeline, request.config.store, endings)
    return run_pipeline(request.config, request.refresh)


def served(flow: Flow[P, R], store: StoreConfig, endings: terminal.Endings) -> Flow[P, R]:
    """Return a flow that a signal stops, with a server and a place for records until the exit."""

    def stop_on_signals(flow: object, flow_run: object, state: object) -> None:
        endings.handle()

    context = ExitStack()
    context.enter_context(temporary_settings(updates={PREFECT_SERVER_ANALYTICS_ENABLED: False}))
    context.enter_context(own_server(Path(store.scratch)))
    context.enter_context(records_beside(store))
    # Prefect sends its last logs and events when the interpreter ends, and before this is called.
    atexit.register(context.close)
    return flow.with_options(on_running=[stop_on_signals])


def attempt(work: Callable[[], T]) -> T:
    """Return what work returns; where it fails, say why and exit."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the trace is in Prefect's log above
        terminal.fail(_explain(error))


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return explain(error, PipelineConfig)
    return str(error) or type(error).__name__


def _print_result(report: Artifact, bundle: Artifact, store: Store) -> None:
    terminal.print_named({name: _readable(value) for name, value in report.summary.items()})
    print(f"bundle: {store.uri(bundle)}")
    print(f"report: {store.uri(report, REPORT_FILE)}")


def _readable(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flow_run_name() -> str:
    """Name the flow run that is starting."""
    return run_name(flow_run.parameters["config"])


def run_name(config: PipelineConfig) -> str:
    """Name a run by its data set, split and preset."""
    data = "+".join(Path(root).name for root in config.data.roots)
    return f"{data}-{config.split.method}-{config.preset}"
