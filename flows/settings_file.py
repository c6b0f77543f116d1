"""The YAML file of settings, with the line of each value, so that an error can name it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic_settings.exceptions import SettingsError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cxrmodel.settings import did_you_mean

MAX_BYTES = 1 << 20
MAX_VALUES = 10_000  # with aliases written out
YAML_TAG = "tag:yaml.org,2002:"
TEXT, NUMBERS = f"{YAML_TAG}str", (f"{YAML_TAG}int", f"{YAML_TAG}float")
NOT_AS_WRITTEN = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # YAML reads 010 as octal, 1:30 in base 60


class SettingsFileError(SettingsError):
    """A file of settings cannot be used; the message says which, on which line, and why."""


class SettingsFile(NamedTuple):
    """What a file says.

    Attributes:
        path: The file.
        values: Its settings, a dictionary for each section.
        lines: The line of each, by its dotted name.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]


def read_settings_file(
    path: Path, names: Iterable[str], given_as: str = "--config"
) -> SettingsFile:
    """Read a file of settings.

    Args:
        path: The file.
        names: Dotted names of all settings; sections and their settings.
        given_as: What named it, for an error.

    Raises:
        SettingsFileError: There is no such file, it is not YAML, or it holds anything but
            sections with settings, each once.
    """
    return settings_of(path, compose_file(path, given_as), names)


def settings_of(path: Path, node: Node, names: Iterable[str]) -> SettingsFile:
    """Return the settings of a file, or of a part of it that holds sections as a file does.

    Args:
        path: The file.
        node: Its content, or the part.
        names: Dotted names of all settings; sections and their settings.

    Raises:
        SettingsFileError: It holds anything but sections with settings, each once.
    """
    found = SettingsFile(path, {}, {})
    _read_section(found, node, "", list(names), found.values)
    return found


def compose_file(path: Path, given_as: str) -> Node:
    """Return the content of a YAML file, with the place of each value.

    Args:
        path: The file.
        given_as: What named it, for an error.

    Raises:
        SettingsFileError: There is no such file, or it is empty, too large or not YAML.
    """
    text = _text(path, given_as)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SettingsFileError(_explained(path, text, error)) from error
    except RecursionError as error:
        raise SettingsFileError(f"{path}: its values are nested too deeply.") from error
    if root is None:
        raise SettingsFileError(f"{path}: it is empty. Write settings in it, or do not name it.")
    _check_size(path, root)
    return root


def _text(path: Path, given_as: str) -> str:
    try:
        if not path.exists():
            raise SettingsFileError(f"{given_as}: there is no file {path.absolute()}")
        if not path.is_file():
            raise SettingsFileError(f"{given_as}: {path.absolute()} is not a file")
        content = path.read_bytes()
    except OSError as error:
        raise SettingsFileError(f"{given_as}: cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SettingsFileError(f"{path}: it has {len(content):,} bytes, too many for settings.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsFileError(
            f"{path}, line {line}: it is not UTF-8 (byte 0x{content[error.start]:02x}). "
            "Save the file as UTF-8."
        ) from error


def _explained(path: Path, text: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"{path}, line {line}: the character U+{int(error.character):04X} is not allowed."
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{path}: {error}"
    mark = error.problem_mark or error.context_mark
    where = f"{path}, line {mark.line + 1}" if mark else str(path)
    hint = " Indent with spaces." if "\\t" in (error.problem or "") else ""
    problem = error.problem or ""
    what = f"{error.context}, {problem}" if problem.startswith("but ") else problem
    return f"{where}: {what or error.context}.{hint}"


def _check_size(path: Path, root: Node) -> None:
    """Refuse a file whose aliases expand to more than anybody would write."""
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES + 1  # its size if it contains itself
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise SettingsFileError(
            f"{path}: with its aliases written out it has more than {MAX_VALUES:,} values. "
            "Write the settings without aliases."
        )


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _read_section(
    found: SettingsFile, node: Node, before: str, names: list[str], values: dict[str, Any]
) -> None:
    """Read a section's settings into `values`, and the lines of all."""
    if not isinstance(node, MappingNode):
        what = f"{before.rstrip('.')} is a section" if before else "settings are sections"
        example = f"`{before.rstrip('.') or 'vae'}: {{…}}`, with a name before each value"
        raise error_at(
            found.path, node, f"{what}, and here is {kind_of(node)}. Write it as {example}."
        )
    refuse_repeated(found.path, node)
    for key, value in node.value:
        name = f"{before}{key.value}"
        if not before and "." in name and name in names:
            section, _, setting = name.partition(".")
            example = f"`{section}: {{{setting}: …}}`"
            text = f"{name} is a setting of a section: write it as {example}."
            raise error_at(found.path, key, text)
        if name not in names:
            text = f"there is no setting {name}{did_you_mean(name, names)}"
            raise error_at(found.path, key, text)
        found.lines[name] = line_of(key)
        if any(other.startswith(f"{name}.") for other in names):
            _read_section(found, value, f"{name}.", names, values.setdefault(key.value, {}))
        else:
            values[key.value] = value_of(found.path, value)


def refuse_repeated(path: Path, node: MappingNode) -> None:
    """Raise a SettingsFileError for a name that is there twice, or is none."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag != TEXT:
            shown = key.value if isinstance(key, ScalarNode) else kind_of(key)
            raise error_at(path, key, f"{shown} is not a name of a setting.")
        if key.value in lines:
            where = f"on line {lines[key.value]} too"
            raise error_at(path, key, f"{key.value} is there twice, {where}. Keep one of them.")
        lines[key.value] = line_of(key)


def value_of(path: Path, node: Node) -> Any:
    """Return a value; raise a SettingsFileError where YAML reads another one than is written."""
    if node.tag in NUMBERS and NOT_AS_WRITTEN.fullmatch(node.value):
        text = f"YAML reads {node.value} as another number. Write it as a decimal one, without a "
        raise error_at(path, node, f"{text}zero before it.")
    try:
        return yaml.SafeLoader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise error_at(path, node, f"{error.problem}.") from error
    except ValueError as error:  # of a number or a date that is none
        raise error_at(path, node, f"{error}.") from error
    except (KeyError, IndexError, AttributeError) as error:  # of a value below an explicit tag
        tag = node.tag.replace(YAML_TAG, "!!")
        raise error_at(path, node, f"{node.value!r} is not what its tag {tag} says.") from error


def error_at(path: Path, node: Node, text: str) -> SettingsFileError:
    """Return an error that says on which line of a file something is wrong."""
    return SettingsFileError(f"{path}, line {line_of(node)}: {text}")


def line_of(node: Node) -> int:
    """Return the line on which a value begins."""
    return int(node.start_mark.line) + 1


def kind_of(node: Node) -> str:
    """Name what a value is."""
    if isinstance(node, ScalarNode):
        return f"the value {node.value!r}" if node.value else "nothing"
    return "a list" if isinstance(node, SequenceNode) else "a mapping"
