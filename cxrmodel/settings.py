"""What a group of settings is: frozen, checked, and with a fingerprint of what decides a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError


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
        use_attribute_docstrings=True,
        validate_default=True,  # 30 and 30.0 must give one cache key
        hide_input_in_errors=True,  # a refused URL may carry a password
        json_schema_extra=_number_fields,
    )

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that determine a result, for cache keys and provenance."""
        fields: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            if KEY_EXEMPT in info.metadata:
                continue
            value = getattr(self, name)
            fields[name] = value.key_fields() if isinstance(value, Section) else value
        return fields

    def fingerprint(self) -> str:
        """Return the sha256 of `key_fields`, in hexadecimal."""
        text = json.dumps(self.key_fields(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _without_credentials(url: str | None) -> str | None:
    links = [urlsplit(link) for link in (url or "").split("::")]  # chained, as in `zip::https://…`
    if any(link.username or link.password for link in links):
        raise ValueError(
            "It must not carry credentials, and it does before the '@'. Set them in the "
            "environment, a profile or a role of the cloud's own chain."
        )
    return url


WITHOUT_CREDENTIALS = AfterValidator(_without_credentials)  # of a URL: a name or a password


def explain(error: ValidationError) -> str:
    """Return what is wrong with which setting, a line each, as its flag is written."""
    lines = []
    for problem in error.errors():
        text, place = problem["msg"].removeprefix("Value error, "), map(str, problem["loc"])
        lines.append(f"--{'.'.join(place)}: {text}" if problem["loc"] else text)
    return "\n".join(lines)
