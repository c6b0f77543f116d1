"""Groups of settings: frozen, checked, with a fingerprint, and with errors that people can read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

MAX_SHOWN_CHARS = 40


class _KeyExempt:
    """Marks a field that changes how a result is made, never what it is."""


KEY_EXEMPT = _KeyExempt()


def _number_fields(schema: dict[str, Any]) -> None:
    # Prefect's parameter form sorts fields by name unless the schema numbers them.
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


class Section(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,  # 30 and 30.0 must give one cache key
        hide_input_in_errors=True,  # a refused URL may carry a password
        json_schema_extra=_number_fields,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1, and YAML takes `lr: on` for true.
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and wanted not in (bool, str):
            raise ValueError(
                "Input should be a number or a word; without quotes, YAML reads yes, no, on and "
                "off as true and false"
            )
        return value

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that determine a result, for cache keys and provenance."""
        fields: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            if KEY_EXEMPT in info.metadata:
                continue
            fields[name] = _key_value(getattr(self, name))
        return fields

    def fingerprint(self) -> str:
        """Return the sha256 of `key_fields`, in hexadecimal."""
        text = json.dumps(self.key_fields(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _key_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_key_value(each) for each in value]
    return value.key_fields() if isinstance(value, Section) else value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest of the known words, or nothing.

    A dotted name is also near where its last part is the same: `epochs` may mean `vae.epochs`.
    """
    names = {name.lower(): name for name in known}
    word = word.lower()
    near = get_close_matches(word, names, n=1)
    same = [name for name in names if _last_part(name) == _last_part(word)]
    found = near or same if "." in word else same or near
    return f"; did you mean {' or '.join(names[name] for name in found)}?" if found else ""


def _last_part(name: str) -> str:
    return name.rpartition(".")[2].removeprefix("--")


def not_one_of(value: str, allowed: Iterable[str]) -> str:
    """Return a message for a value that is not allowed."""
    words = list(allowed)
    return f"{value!r} is not one of {', '.join(words)}{did_you_mean(value, words)}"


def setting_names(model: type[BaseModel], before: str = "") -> list[str]:
    """Return the dotted names of all settings of a model, those of its sections included."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(f"{before}{name}")
        if isinstance(field.default, Section):
            names += setting_names(type(field.default), f"{before}{name}.")
    return names


class Problem(NamedTuple):
    """What is wrong with one setting.

    Attributes:
        name: The setting, such as `vae.epochs`; empty where it is several of them together.
        text: What is wrong with it.
    """

    name: str
    text: str


def problems_of(error: ValidationError, names: Iterable[str]) -> list[Problem]:
    """Return what is wrong, each setting once.

    Args:
        error: What pydantic says.
        names: Dotted names of all settings.
    """
    known = list(names)
    found: dict[str, list[str]] = {}
    for details in error.errors():
        name = _setting(details["loc"], known, is_unknown=details["type"] == "extra_forbidden")
        if details["type"] == "value_error" and any(n.startswith(f"{name}.") for n in known):
            name = ""  # of several settings of a section, which the message names
        found.setdefault(name, []).append(_explained(name, details, known))
    return [Problem(name, "; or: ".join(dict.fromkeys(texts))) for name, texts in found.items()]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a line per problem with a setting of a model, each beginning with its flag."""
    return "\n".join(
        f"--{problem.name}: {problem.text}" if problem.name else problem.text
        for problem in problems_of(error, setting_names(model))
    )


def _setting(place: tuple[int | str, ...], known: list[str], *, is_unknown: bool) -> str:
    """Return the name of a setting, without the place in a list or the member of a union."""
    parts = [part for part in place if isinstance(part, str)]
    while parts and not is_unknown and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts)


def _explained(name: str, details: ErrorDetails, known: list[str]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    text = details["msg"].removeprefix("Value error, ")
    in_list = next((part for part in details["loc"] if isinstance(part, int)), None)
    if in_list is not None and kind in ("extra_forbidden", "missing"):
        what = "has no setting called" if kind == "extra_forbidden" else "lacks its setting"
        return f"The entry {in_list + 1} of the list {what} {details['loc'][-1]}"
    if kind == "extra_forbidden":
        return f"There is no such setting{did_you_mean(name, known)}"
    if kind == "literal_error" and isinstance(value, str) and _may_be_shown(value):
        return not_one_of(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in ("model_type", "model_attributes_type"):
        inner = next((other for other in known if other.startswith(f"{name}.")), "")
        if not inner:
            return "It is a list of settings by their names: write it in the file of --config"
        return f"It is a section: give the settings in it by their names, such as {inner}"
    if kind == "string_type" and not isinstance(value, list | dict):
        text += "; in YAML put it in quotes"
    if kind == "multiple_of" and isinstance(value, str | int):
        step = context["multiple_of"]
        lower = max(int(value) // step, 1) * step
        text += f", such as {lower} or {lower + step}"
    return text if kind == "value_error" or not _may_be_shown(value) else f"{text}, got {value!r}"


def _may_be_shown(value: Any) -> bool:
    # A URL in the wrong place may carry a password.
    is_text = isinstance(value, str) and len(value) <= MAX_SHOWN_CHARS and "@" not in value
    return is_text or isinstance(value, bool | int | float | None)
