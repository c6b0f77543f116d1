"""Flags of a command whose settings are one section: `--data.root R` and so on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, TypeVar, get_args, get_origin

from prefect import Flow
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings.exceptions import SettingsError

from cxrmodel.inference.use_config import (
    EvaluateConfig,
    MonitorConfig,
    PromoteConfig,
    ScoreConfig,
)
from cxrmodel.settings import Section, explain
from flows import terminal
from flows.command_line import EXIT_BAD_SETTINGS, Parser, attempt, served

Settings = TypeVar("Settings", ScoreConfig, MonitorConfig, PromoteConfig, EvaluateConfig)


def read_flags(model: type[Settings], program: str, arguments: list[str]) -> Settings:
    """Return the settings that flags say; what is not given has its default.

    Args:
        model: The settings; its docstring describes the command.
        program: The command, for its help.
        arguments: Of the command line.

    Raises:
        SettingsError: A flag is unknown or has an impossible value.
    """
    parser = Parser(program, description=model.__doc__, allow_abbrev=False)
    for name, field in _settings_of(model):
        parser.add_argument(f"--{name}", dest=name, help=field.description, **_kind_of(field))
    known, unknown = parser.parse_known_args(arguments)
    parser.refuse(unknown)
    try:
        return model.model_validate(_nested(vars(known)))
    except ValidationError as error:
        raise SettingsError(explain(error, model)) from error


def run_command(
    flow: Flow[[Settings], dict[str, str]], model: type[Settings], program: str
) -> None:
    """Run a flow with the settings that this process's flags say, print what it did, and exit."""
    with terminal.command("stopped; the same command goes on from here") as endings:
        try:
            config = read_flags(model, program, sys.argv[1:])
        except SettingsError as error:
            terminal.fail(str(error), EXIT_BAD_SETTINGS)
        done = attempt(lambda: served(flow, config.store, endings)(config))
        terminal.print_named(done)


def _settings_of(model: type[Section], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section_in(field)
        if section is not None and get_origin(field.annotation) is tuple:
            continue  # a list of sections is given in Prefect's form
        if section is None:
            yield f"{before}{name}", field
        else:
            yield from _settings_of(section, f"{before}{name}.")


def _section_in(field: FieldInfo) -> type[Section] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def _kind_of(field: FieldInfo) -> dict[str, Any]:
    """Return how argparse takes a setting; one that is not given stays away."""
    if field.annotation is bool:
        return {"action": "store_true", "default": argparse.SUPPRESS}
    action = "append" if isinstance(field.default, tuple) else "store"
    return {"action": action, "metavar": "VALUE", "default": argparse.SUPPRESS}


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, last = name.split(".")
        inner = settings
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return settings
