"""What the report reads of the stages is checked where it is read."""

import dataclasses

import pandas as pd
import pytest

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.report.run import read_run


@pytest.fixture
def changed(made_run, tmp_path):
    """Return a function that puts a changed copy of a stage's table in the place of its own."""

    def change(stage, name, edit):
        folder = tmp_path / stage
        folder.mkdir()
        for path in getattr(made_run.inputs, stage).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        edit(pd.read_parquet(folder / name)).to_parquet(folder / name, index=False)
        return dataclasses.replace(made_run.inputs, **{stage: folder}), folder / name

    return change


def test_latents_without_a_row_name_the_image(changed, made_run):
    inputs, path = changed("latents", "latents.parquet", lambda table: table.drop(index=[3, 7]))
    with pytest.raises(
        DamagedArtifactError, match=rf"{path} has no row of 2 of the split's 240 images; the first"
    ):
        read_run(inputs, made_run.record)


@pytest.mark.parametrize("column", ["split", "mu_00", "ssim"])
def test_latents_of_another_version_name_the_column(changed, made_run, column):
    inputs, path = changed("latents", "latents.parquet", lambda table: table.drop(columns=column))
    with pytest.raises(DamagedArtifactError, match=rf"{path} has no column {column}"):
        read_run(inputs, made_run.record)


@pytest.mark.parametrize(
    ("stage", "column"), [("vae", "posterior_variance"), ("classifier", "val_loss")]
)
def test_a_history_of_another_version_names_the_column(changed, made_run, stage, column):
    inputs, path = changed(stage, "history.parquet", lambda table: table.drop(columns=column))
    with pytest.raises(DamagedArtifactError, match=rf"{path} has no column {column}.*run its"):
        read_run(inputs, made_run.record)


def test_a_table_that_is_cut_off_is_named(changed, made_run):
    inputs, path = changed("vae", "history.parquet", lambda table: table)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedArtifactError, match=rf"{path} cannot be read"):
        read_run(inputs, made_run.record)


def test_notes_of_the_index_and_of_the_split_are_read(changed, made_run):
    inputs, path = changed("split", "split.parquet", lambda table: table)
    path.with_name("notes.json").write_text('["The parts are uneven."]')
    assert read_run(inputs, made_run.record).notes == ["The parts are uneven."]
