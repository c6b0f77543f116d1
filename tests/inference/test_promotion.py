"""Who gets an alias, who gets it back, and what stands in the way."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from cxrmodel.config import SplitConfig
from cxrmodel.data.files.root import joint_root
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference import promotion
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.promotion import (
    contest_text,
    hold_contest,
    roll_back,
    settle_contest,
    this_user,
    warn_of_moving_parts,
)
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.storage.aliases import Aliases


def another(bundle, place) -> Path:
    """Copy a bundle, with a card of its own."""
    copy = shutil.copytree(bundle, place)
    (copy / "README.md").write_text(f"the card of {place}")
    write_checksums(copy)
    return copy


@pytest.fixture
def settings(bundle, tmp_path):
    """Return settings of a store whose champion is a copy of the bundle."""

    def of(**given) -> PromoteConfig:
        store = {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
        return PromoteConfig(**given, store=store, device="cpu")

    first = of(challenger=str(another(bundle, tmp_path / "first")))
    settle_contest(hold_contest(first), first)
    return of


@pytest.fixture
def table(run, tmp_path) -> pd.DataFrame:
    return pd.read_parquet(run.stage("report") / "test_predictions.parquet")


@pytest.mark.parametrize(
    "named, places", [("the end", "one"), ("the end", "several"), ("the whole path", "one")]
)
def test_test_images_are_found_in_one_place_or_several(
    settings, run, bundle, table, tmp_path, named, places
):
    if named == "the whole path":
        table = table.assign(image=[f"{run.root}/images/{name}" for name in table["image"]])
    (tmp_path / "other").mkdir()
    roots = {"nih": str(run.root), "nih 2": str(tmp_path / "other")}
    if places == "several":  # as a run on several data sets names them
        table = table.assign(image=[f"nih/{name}" for name in table["image"]])
    table.to_csv(tmp_path / "test.csv", index=False)
    root = joint_root(roots) if places == "several" else str(run.root)
    challenger = another(bundle, tmp_path / "second")
    contest = hold_contest(
        settings(challenger=str(challenger), test=str(tmp_path / "test.csv"), data={"root": root})
    )
    assert not contest.is_won
    assert contest.judgement.num_images == len(table)


def test_a_table_without_rows_is_said(settings, run, bundle, table, tmp_path):
    table[:0].to_csv(tmp_path / "test.csv", index=False)
    config = settings(
        challenger=str(another(bundle, tmp_path / "second")),
        test=str(tmp_path / "test.csv"),
        data={"root": str(run.root)},
    )
    contest = hold_contest(config)
    assert not contest.is_won
    assert "is left to judge by (no rows)" in contest.obstacle
    assert contest.obstacle in contest_text(contest)


def test_a_champion_that_is_gone_or_replaced_neither_judges_nor_comes_back(
    settings, run, bundle, tmp_path
):
    test = str(run.stage("report") / "test_predictions.parquet")
    second = another(bundle, tmp_path / "second")
    challenge = settings(challenger=str(second), test=test, data={"root": str(run.root)})
    Aliases(challenge.store.root).give(
        "champion",
        str(second),
        hold_contest(challenge).challenger_digest,
        who="ann",
        why="a test",
        instead_of=Aliases(challenge.store.root).current("champion").digest,
    )
    back = settings(challenger=str(tmp_path / "first"), test=test, data={"root": str(run.root)})
    first, kept = tmp_path / "first", tmp_path / "kept"
    first.rename(kept)
    with pytest.raises(DamagedArtifactError, match=r"that got the alias champion on .*first is no"):
        roll_back(settings(rollback=True))
    another(bundle, first)
    (first / "README.md").write_text("changed")
    write_checksums(first)
    with pytest.raises(ValueError, match=r"first is not the bundle that got .*champion.json and"):
        roll_back(settings(rollback=True))
    shutil.rmtree(first)
    kept.rename(first)
    shutil.rmtree(second)
    with pytest.raises(DamagedArtifactError, match=r"got the alias champion on .*second is not a"):
        hold_contest(back)
    assert roll_back(settings(rollback=True)).bundle == str(first)


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(promotion.getpass, "getuser", nobody)
    monkeypatch.setattr(promotion.os, "getuid", lambda: 4711)
    assert this_user().startswith("user 4711@")


@pytest.mark.parametrize(
    ("method", "is_warned"), [("patient", True), ("rows", True), ("hash", False)]
)
def test_a_split_under_which_patients_move_is_warned_of(method, is_warned, caplog):
    warn_of_moving_parts(SplitConfig(method=method))
    assert (f"split.method is {method}, which deals the parts anew" in caplog.text) == is_warned


def test_a_misspelt_guard_is_told_while_there_is_no_champion(bundle, tmp_path):
    config = PromoteConfig(
        challenger=str(bundle), guard=("Efusion",), store={"root": str(tmp_path)}, device="cpu"
    )
    with pytest.raises(ValueError, match="guard names 'Efusion', and the challenger's labels are"):
        hold_contest(config)
