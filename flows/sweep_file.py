"""The YAML file of a sweep, and the command line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError
from yaml.nodes import MappingNode, Node, ScalarNode

from cxrmodel.config import PipelineConfig
from cxrmodel.settings import did_you_mean, problems_of
from cxrmodel.sweep_config import SEEDED, SweepConfig, changed, check_change
from cxrmodel.training.vae.objective import make_objective
from flows.command_line import SETTINGS, flags_of, parse
from flows.settings_file import (
    SettingsFile,
    compose_file,
    error_at,
    kind_of,
    read_settings_file,
    refuse_repeated,
    settings_of,
    value_of,
)

PROGRAM = "python flows/sweep.py"
EXAMPLE = "configs/sweeps/ablation.yaml"
FIELDS = ("base", "settings", "seeds", "choose_by")
HELP = f"""usage: {PROGRAM} SWEEP.yaml [--dry-run] [--SETTING VALUE ...]

Train several settings with several seeds each, choose one on validation, and write a page. What
was run before is not run again: a sweep that was stopped goes on where it was.

SWEEP.yaml has
  settings   what each setting changes, by its name: `more: {{vae: {{epochs: 40}}}}`; the others are
             compared with the first one
  base       what all have in common: settings, or a file of them relative to this one
  seeds      a number N for the seeds 0 to N - 1, or a list; without it 0, 1 and 2
  choose_by  macro_auroc (the default), macro_average_precision or l1, on validation

--dry-run    say how many stage runs are cached, shared and left to do, and stop
Every other flag is a setting of flows/main.py, such as --data.root or --store.root: it overrides
base. `python flows/main.py --help` shows all of them."""


class SweepFile(NamedTuple):
    """What the file of a sweep says.

    Attributes:
        path: The file.
        base: What all settings have in common.
        settings: What each changes, by its name.
        others: Further fields of the sweep, by their names.
    """

    path: Path
    base: SettingsFile
    settings: dict[str, SettingsFile]
    others: dict[str, Any]


def read_command(arguments: list[str]) -> tuple[SweepConfig, bool]:
    """Return the sweep that a command line names, and whether only to plan it.

    Args:
        arguments: Of the command line: the file of the sweep, then flags.

    Raises:
        SettingsError: The file or a flag cannot be used; the message has a line per problem.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SettingsError(
            f"The first argument is the file of a sweep, such as {EXAMPLE}.\nSee {PROGRAM} --help."
        )
    flags = arguments[1:]
    for flag in flags_of(flags):
        if flag in ("--config", "--refresh", *(f"--{section}.seed" for section in SEEDED)):
            raise SettingsError(f"{flag} is not for a sweep\nSee {PROGRAM} --help.")
    file = read_sweep_file(Path(arguments[0]).expanduser())
    request = parse(flags, PROGRAM, file=file.base)
    for name, change in file.settings.items():
        _check(name, change, request.config, file.others.get("choose_by", ""))
    try:
        config = SweepConfig(
            name=file.path.stem,
            base=request.config,
            settings={name: change.values for name, change in file.settings.items()},
            **file.others,
        )
    except ValidationError as error:
        problems = problems_of(error, FIELDS)
        lines = [f"{file.path}: {': '.join(filter(None, problem))}" for problem in problems]
        raise SettingsError("\n".join(lines)) from error
    return config, request.dry_run


def read_sweep_file(path: Path) -> SweepFile:
    """Read the file of a sweep.

    Args:
        path: The file.

    Raises:
        SettingsFileError: It cannot be read, or is no sweep; the message says on which line.
    """
    root = compose_file(path, "The sweep")
    fields = _fields(path, root)
    if "settings" not in fields:
        raise error_at(path, root, "there are no settings to compare. Give `settings: {…}`.")
    settings = fields.pop("settings")
    if not isinstance(settings, MappingNode) or not settings.value:
        text = f"settings has each setting's changes by its name, and here is {kind_of(settings)}."
        raise error_at(path, settings, text)
    refuse_repeated(path, settings)
    changes = {key.value: settings_of(path, value, SETTINGS) for key, value in settings.value}
    base = _base(path, fields.pop("base", None))
    others = {name: value_of(path, node) for name, node in fields.items()}
    return SweepFile(path, base, changes, others)


def _fields(path: Path, root: Node) -> dict[str, Node]:
    if not isinstance(root, MappingNode):
        text = f"a sweep has the fields {', '.join(FIELDS)}, and here is {kind_of(root)}."
        raise error_at(path, root, text)
    refuse_repeated(path, root)
    for key, _ in root.value:
        if key.value not in FIELDS:
            text = f"a sweep has the fields {', '.join(FIELDS)}, and no {key.value}"
            raise error_at(path, key, f"{text}{did_you_mean(key.value, FIELDS)}")
    return {key.value: value for key, value in root.value}


def _base(path: Path, node: Node | None) -> SettingsFile:
    if node is None:
        return SettingsFile(path, {}, {})
    if isinstance(node, ScalarNode) and node.value:
        return read_settings_file(path.parent / node.value, SETTINGS, f"{path}: base")
    return settings_of(path, node, SETTINGS)


def _check(name: str, file: SettingsFile, base: PipelineConfig, choose_by: str) -> None:
    """Raise a SettingsError that names the line on which a setting is wrong."""
    try:
        check_change(name, file.values, choose_by)
        make_objective(changed(base, file.values).vae)
    except ValidationError as error:
        lines = []
        for field, text in problems_of(error, SETTINGS):
            line = f", line {file.lines[field]}" if field in file.lines else ""
            lines.append(f"{file.path}{line}: {': '.join(filter(None, (field, text)))}")
        raise SettingsError("\n".join(lines)) from error
    except ValueError as error:
        raise SettingsError(f"{file.path}: {error}") from error
