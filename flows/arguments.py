"""Arguments of a command: a mistake is told in a line, with what was probably meant."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from pydantic_settings.exceptions import SettingsError

from cxrmodel.settings import did_you_mean, not_one_of


class Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of printing it below a page of usage."""

    @property
    def flags(self) -> list[str]:
        """The flags it knows."""
        return [flag for action in self._actions for flag in action.option_strings]

    def refuse(self, unknown: list[str]) -> None:
        """Raise a SettingsError where there are arguments that the parser has not known."""
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
