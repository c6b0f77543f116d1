"""Names for bundles: `champion` and any other, each a small JSON file that keeps its history.

`<store.root>/_aliases/<name>.json` says which bundle has the name now, and who gave it to whom,
when and why. A change is written only where nobody else has changed the name since it was read, so
that of two changes at once one wins and the history is whole. A bundle within the store is named
relative to it: a copied store keeps its aliases.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.places import ALIASES_FOLDER
from cxrmodel.storage.small_files import open_small_files

CHAMPION, PREVIOUS = "champion", "previous"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
FORMAT = "cxrmodel-alias"
MAX_TRIES = 20  # writers at the same instant


@dataclass(frozen=True)
class Change:
    """One entry of an alias's history.

    Attributes:
        bundle: Place of the bundle, relative to the store where it lies in it.
        digest: The bundle's identity.
        at: When, ISO 8601 in UTC.
        who: Who did it.
        why: The reason, in words.
        evidence: What it rests on, as JSON.
    """

    bundle: str
    digest: str
    at: str
    who: str
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)


class AliasChangedError(StoreError):
    """Somebody else changed the alias after it was looked at."""


class Aliases:
    """The aliases of a store.

    Args:
        root: Folder or URL of the store, as `store.root`.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._files = open_small_files(f"{self.root}/{ALIASES_FOLDER}")

    def names(self) -> list[str]:
        """Return the names that some bundle has or had."""
        return [name.removesuffix(".json") for name in self._files.find() if name.endswith(".json")]

    def history(self, name: str) -> tuple[Change, ...]:
        """Return all changes of a name, the latest last; none where nobody has given it.

        Raises:
            DamagedArtifactError: The file is no alias.
        """
        return self._read(name)[0]

    def current(self, name: str) -> Change | None:
        """Return which bundle has a name now; `previous` is what was champion before.

        Raises:
            DamagedArtifactError: The file is no alias.
        """
        if name == PREVIOUS:
            return self.before(CHAMPION)
        history = self.history(name)
        return history[-1] if history else None

    def before(self, name: str) -> Change | None:
        """Return the last change of a name to another bundle than the present one.

        Raises:
            DamagedArtifactError: The file is no alias.
        """
        return _before(self.history(name))

    def in_use(self) -> list[str]:
        """Return the places of all bundles that have a name, or would get it back."""
        histories = [self.history(name) for name in self.names()]
        latest = [x for history in histories if history for x in (history[-1], _before(history))]
        return [change.bundle for change in latest if change is not None]

    def find(self, name: str) -> str:
        """Return the place of the bundle that has a name.

        Raises:
            StoreError: No bundle has it.
        """
        found = self.current(name)
        if found is None:
            there = [*self.names(), PREVIOUS] if self.current(PREVIOUS) else self.names()
            known = f"those it has: {', '.join(there)}" if there else "it has none"
            raise StoreError(
                f"The store {self.root} has no alias {name} ({known}), and there is no folder of "
                "that name. `python flows/promote.py` gives an alias to a bundle."
            )
        return self.place_of(found)

    def place_of(self, change: Change) -> str:
        """Return the place of a change's bundle, as other commands take it."""
        is_absolute = change.bundle.startswith("/") or ":" in change.bundle
        return change.bundle if is_absolute else f"{self.root}/{change.bundle}"

    def place_of_alias(self, name: str) -> str:
        """Return the place of the file that keeps a name."""
        return f"{self.root}/{ALIASES_FOLDER}/{_file(name)}"

    def give(
        self,
        name: str,
        bundle: str,
        digest: str,
        *,
        who: str,
        why: str,
        evidence: dict[str, Any] | None = None,
        instead_of: str | None,
    ) -> Change:
        """Give a name to a bundle.

        Args:
            name: Lower-case letters, digits, '-' and '_'.
            bundle: Folder, zip archive or URL of it.
            digest: Its identity.
            who: Who does it.
            why: The reason, in words.
            evidence: What it rests on, as JSON.
            instead_of: Digest of the bundle that has the name now; None: no bundle has.

        Raises:
            AliasChangedError: Another bundle has the name now.
            ValueError: It is no name, or a reserved one.
        """
        _check_name(name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        change = Change(self._relative(bundle), digest, now, who, why, evidence or {})
        for _ in range(MAX_TRIES):
            history, version = self._read(name)
            has_it = history[-1].digest if history else None
            if has_it != instead_of:
                raise AliasChangedError(
                    f"{name} of {self.root} was changed in the meantime: it is {_short(has_it)} "
                    f"now, and was {_short(instead_of)}. Look at the new one, and run again."
                )
            if self._files.replace(_file(name), _to_json(name, (*history, change)), version):
                return change
        raise AliasChangedError(f"{name} of {self.root} is being changed by others. Run again.")

    def roll_back(self, name: str = CHAMPION, *, who: str, why: str) -> Change:
        """Give a name back to the bundle that had it before; twice is as if nothing had been.

        Raises:
            StoreError: No other bundle has ever had it.
            AliasChangedError: It was changed at the same time.
        """
        history = self.history(name)
        back = _before(history)
        if back is None:
            raise StoreError(
                f"{name} of {self.root} cannot be rolled back: "
                f"{'only one bundle has ever had it' if history else 'no bundle has it'}."
            )
        now = history[-1]
        return self.give(
            name,
            self.place_of(back),
            back.digest,
            who=who,
            why=why,
            evidence={"rolled_back": now.digest},
            instead_of=now.digest,
        )

    def _read(self, name: str) -> tuple[tuple[Change, ...], str | None]:
        found = self._files.read_versioned(_file(name))
        if found is None:
            return (), None
        content, version = found
        try:
            text = json.loads(content)
            if text["format"] != FORMAT or not text["history"]:
                raise ValueError(f"it is no {FORMAT} with a history")
            history = tuple(Change(**entry) for entry in text["history"])
            if not all(map(_is_whole, history)):
                raise ValueError("an entry of its history has a field of another type")
            return history, version
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedArtifactError(
                f"{self.place_of_alias(name)} is not an alias that this version reads: {error}. "
                "Restore it from a backup, or delete it and give the name again."
            ) from error

    def _relative(self, bundle: str) -> str:
        root, place = (
            text.rstrip("/") if ":" in text else str(Path(text).expanduser().resolve())
            for text in (self.root, bundle)
        )
        return place.removeprefix(f"{root}/")


def find_bundle(bundle: str, root: str) -> str:
    """Return the place of a bundle that is given by an alias or by its place.

    Args:
        bundle: An alias of the store, or a folder, zip archive or URL. A folder that has the name
            of an alias is written with ./ before it.
        root: Folder or URL of the store that keeps the aliases.

    Raises:
        StoreError: It is a word that is neither an alias nor a folder.
    """
    if not NAME.fullmatch(bundle):
        return bundle
    aliases = Aliases(root)
    is_folder = aliases.current(bundle) is None and Path(bundle).exists()
    return bundle if is_folder else aliases.find(bundle)


def _is_whole(change: Change) -> bool:
    texts = (change.bundle, change.digest, change.at, change.who, change.why)
    return all(isinstance(text, str) for text in texts) and isinstance(change.evidence, dict)


def _before(history: tuple[Change, ...]) -> Change | None:
    """Return the last change to another bundle than the present one."""
    others = [change for change in history if change.digest != history[-1].digest]
    return others[-1] if others else None


def _file(name: str) -> str:
    return f"{name}.json"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no alias: it begins with a lower-case letter and has lower-case letters, "
            "digits, '-' and '_', up to 63."
        )
    if name == PREVIOUS:
        raise ValueError(f"{PREVIOUS} is what was {CHAMPION} before; it follows by itself.")


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "no bundle"


def _to_json(name: str, history: tuple[Change, ...]) -> bytes:
    now = history[-1]
    content = {
        "format": FORMAT,
        "name": name,
        "bundle": now.bundle,
        "digest": now.digest,
        "history": [asdict(change) for change in history],
    }
    return f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode()
