"""Bring a Prefect server to the wanted state, and say what that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

MAX_CHARS = 80

T = TypeVar("T")


class Resource(Protocol):
    """Something on the server that this package makes."""

    label: str

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        ...

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        ...

    def write(self, client: SyncPrefectClient) -> None:
        """Create or update."""
        ...

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove."""
        ...


def found(read: Callable[[], T]) -> T | None:
    """Return what a request reads from the server, None where it is not there."""
    try:
        return read()
    except ObjectNotFound:
        return None


@dataclass(frozen=True)
class Change:
    """What happens to one resource.

    Attributes:
        label: Which resource.
        action: `create`, `update`, `unchanged`, `delete` or `absent`.
        differences: Lines of `field: old -> new`, for an update.
    """

    label: str
    action: str
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.action:<9} {self.label}", *self.differences])


def apply(
    resources: Sequence[Resource], client: SyncPrefectClient, *, dry_run: bool = False
) -> Iterator[Change]:
    """Create or update each resource that differs, in order; yield what changes."""
    for resource in resources:
        change = compare(resource, client)
        if change.action != "unchanged" and not dry_run:
            resource.write(client)
        yield change


def remove(
    resources: Sequence[Resource], client: SyncPrefectClient, *, dry_run: bool = False
) -> Iterator[Change]:
    """Delete each resource that exists, in reverse order; yield what changes."""
    for resource in reversed(resources):
        exists = resource.current(client) is not None
        if exists and not dry_run:
            resource.delete(client)
        yield Change(resource.label, "delete" if exists else "absent")


def compare(resource: Resource, client: SyncPrefectClient) -> Change:
    """Say what applying a resource would change."""
    current, wanted = resource.current(client), resource.wanted()
    if current is None:
        return Change(resource.label, "create")
    differences = tuple(_differences(_flat(current), _flat(wanted)))
    return Change(resource.label, "update" if differences else "unchanged", differences)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries and lists by dotted name."""
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and value:
        parts = dict(enumerate(value)).items()
    else:
        return {name: value}
    return {
        key: leaf
        for part, nested in parts
        for key, leaf in _flat(nested, f"{name}.{part}" if name else str(part)).items()
    }


def _differences(current: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name in sorted(current.keys() | wanted.keys()):
        if name not in wanted or name not in current or current[name] != wanted[name]:
            yield f"{name}: {_shown(current, name)} -> {_shown(wanted, name)}"


def _shown(fields: dict[str, Any], name: str) -> str:
    text = repr(fields[name]) if name in fields else "(none)"
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
