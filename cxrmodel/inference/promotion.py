"""From a challenger to a champion: judged on held-out images, and named in the store."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

from cxrmodel.config import SplitConfig
from cxrmodel.errors import DamagedArtifactError, NothingToJudgeError
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.evaluation.promotion import Judgement, Rules, judge
from cxrmodel.inference.bundle import Bundle, read_bundle
from cxrmodel.inference.held_out import read_held_out
from cxrmodel.inference.predictor import Model, load
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.aliases import Aliases, Change, find_bundle

SHOWN_CHARS = 16  # of a digest
MOVING = ("patient", "rows")  # methods of a split under which patients change part

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contest:
    """A challenger beside the champion.

    Attributes:
        alias: What it is about.
        challenger: Place of the challenger.
        challenger_digest: Its identity.
        champion_digest: Identity of the bundle that has the alias; None where none has.
        judgement: What the images say; None where there is no other champion to compare with.
        left_out: Test images that were left out, by reason.
        test: The table of the test images.
        obstacle: Why nothing could be judged; empty where something was, or need not be.
    """

    alias: str
    challenger: str
    challenger_digest: str
    champion_digest: str | None
    judgement: Judgement | None
    left_out: dict[str, int]
    test: str | None
    obstacle: str = ""

    @property
    def is_won(self) -> bool:
        """Whether the challenger may have the alias."""
        if self.judgement is None:
            return self.champion_digest is None
        return self.judgement.is_better

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences that say why."""
        if self.judgement is not None:
            return self.judgement.reasons
        if self.obstacle:
            return (self.obstacle,)
        if self.champion_digest is None:
            return (f"No bundle has the alias {self.alias} yet.",)
        return (f"It has the alias {self.alias} already.",)

    def evidence(self) -> dict[str, Any]:
        """Return what the decision rests on, as JSON."""
        found = self.judgement.as_json() if self.judgement else {}
        return {**found, "test": self.test, "left_out": self.left_out}


def hold_contest(config: PromoteConfig, *, report: ReportProgress = silent) -> Contest:
    """Compare a challenger with the bundle that has the alias; where none has, it has won.

    Args:
        config: Bundles, test images and rules.
        report: Told of the progress.

    Raises:
        ValueError: There is no table of test images, or the champion is no longer what it was.
        CxrModelError: A bundle, the table or an alias cannot be used.
    """
    aliases = Aliases(config.store.root)
    place = find_bundle(str(config.challenger), config.store.root)
    challenger = load(place, device=config.device)
    _check_guard(config.guard, challenger.labels)
    digest, now = challenger.bundle.digest, aliases.current(config.alias)
    if now is None or now.digest == digest:
        return Contest(config.alias, place, digest, now.digest if now else None, None, {}, None)
    if config.test is None:
        raise ValueError(
            "Give test, a table of labelled test images to judge by, such as "
            "test_predictions.parquet of the challenger's report, and data.root, their folder."
        )
    champion = Model(_read_unchanged(aliases, config.alias, now), config.device)
    sides = (config.alias, place, digest, now.digest)
    try:
        images, left_out = read_held_out(
            champion, challenger, config.test, config.data.root, report=report
        )
    except NothingToJudgeError as error:
        return Contest(*sides, None, {}, config.test, str(error))
    rules = Rules(config.margin, config.guard, config.tolerance)
    judgement = judge(images, rules, seed=config.seed)
    return Contest(*sides, judgement, left_out, config.test)


def warn_of_moving_parts(split: SplitConfig) -> None:
    """Say before a training that the test images it ends with may be the champion's train images.

    Args:
        split: How the training divides its images.
    """
    if split.method in MOVING:
        logger.warning(
            "split.method is %s, which deals the parts anew whenever the data set grows: images "
            "that this run tests on may be among those that the champion was trained on, and do "
            "not count in the comparison at the end. Set split.method to hash, and no patient "
            "moves.",
            split.method,
        )


def _check_guard(guard: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Refuse a misspelt label now, and not only once there is a champion to compare with."""
    for label in guard:
        if label not in labels:
            known = ", ".join(labels) or "none"
            raise ValueError(f"guard names {label!r}, and the challenger's labels are {known}.")


def settle_contest(contest: Contest, config: PromoteConfig, who: str = "", why: str = "") -> Change:
    """Give the alias to the challenger that has won.

    Args:
        contest: Won.
        config: Of the contest.
        who: Who approved it; without, who the settings name, or this user.
        why: Likewise why.

    Raises:
        AliasChangedError: Another bundle has got the alias meanwhile.
    """
    return Aliases(config.store.root).give(
        contest.alias,
        contest.challenger,
        contest.challenger_digest,
        who=who or config.who or this_user(),
        why=why or config.why or " ".join(contest.reasons),
        evidence=contest.evidence(),
        instead_of=contest.champion_digest,
    )


def roll_back(config: PromoteConfig) -> Change:
    """Give the alias back to the bundle that had it before.

    Raises:
        StoreError: No other bundle has ever had it.
        DamagedArtifactError: That bundle is gone or damaged.
        ValueError: It was replaced.
    """
    aliases = Aliases(config.store.root)
    back = aliases.before(config.alias)
    if back is not None:
        _read_unchanged(aliases, config.alias, back)
    return aliases.roll_back(
        config.alias, who=config.who or this_user(), why=config.why or "rolled back"
    )


def _read_unchanged(aliases: Aliases, alias: str, change: Change) -> Bundle:
    """Return the bundle that a change names, if it is still that one."""
    place = aliases.place_of(change)
    advice = f"Restore it, or remove {aliases.place_of_alias(alias)} and give the alias anew."
    try:
        bundle = read_bundle(place)
    except DamagedArtifactError as error:
        raise DamagedArtifactError(
            f"The bundle that got the alias {alias} on {change.at} cannot be used. {error} {advice}"
        ) from error
    if bundle.digest != change.digest:
        raise ValueError(
            f"{place} is not the bundle that got the alias {alias} on {change.at}: it was "
            f"replaced. {advice}"
        )
    return bundle


def this_user() -> str:
    """Name who runs this process, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def contest_text(contest: Contest) -> str:
    """Return a contest as Markdown, for a person who decides."""
    verdict = "has won" if contest.is_won else "has not won"
    lines = [
        f"The challenger `{contest.challenger}` ({contest.challenger_digest[:SHOWN_CHARS]}) "
        f"**{verdict}** against the {contest.alias} "
        f"({(contest.champion_digest or 'none')[:SHOWN_CHARS]}).",
        "",
        *(f"- {reason}" for reason in contest.reasons),
    ]
    found = contest.judgement
    if found is None:
        return "\n".join(lines)
    left_out = ", ".join(f"{name} {count:,}" for name, count in contest.left_out.items())
    rows = {"macro AUROC": found.macro["gain"], **found.gains}
    return "\n".join(
        [
            *lines,
            "",
            f"Judged by {found.num_images:,} images of {found.num_patients:,} patients of "
            f"{contest.test}; left out: {left_out or 'none'}.",
            "",
            "| AUROC, challenger less champion | gain | 95 % interval |",
            "|---|---|---|",
            *(f"| {name} | {_gain(gain)} | {_interval(gain)} |" for name, gain in rows.items()),
        ]
    )


def _gain(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:+.4f}"


def _interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return estimate.reason or ""
    return f"{estimate.interval[0]:+.4f} to {estimate.interval[1]:+.4f}"
