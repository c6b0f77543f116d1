"""Flags and files into settings, and the help that names each of them."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from cxrmodel.config import DataConfig, PipelineConfig, SplitConfig
from flows.command_line import parse, run_name

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def help_text(capsys, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as exit_:
        parse(["--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_setting_with_its_meaning_and_default(help_text):
    words = " ".join(help_text.split())
    for section, field in PipelineConfig.model_fields.items():
        if not isinstance(field.default, BaseModel):
            continue
        for name, setting in type(field.default).model_fields.items():
            assert f"--{section}.{name} " in help_text
            meaning, default = " ".join(setting.description.split()), getattr(field.default, name)
            assert f"{meaning} (default: {default})" in words
    for flag in ("--config", "--refresh STAGE", "--dry-run ", "--preset"):
        assert flag in help_text


def test_help_fits_a_terminal_and_lists_sections_in_the_order_of_the_run(help_text):
    assert max(len(line) for line in help_text.splitlines()) <= 80
    sections = [line for line in help_text.splitlines() if line.endswith(" options:")]
    names = [line.removesuffix(" options:") for line in sections]
    assert names == [name for name in PipelineConfig.model_fields if name != "preset"]
    assert help_text.startswith("usage: python flows/main.py [--config FILE] [--dry-run]")


def test_flags_override_the_file_and_both_the_defaults():
    request = parse(["--config", str(CONFIGS / "fast.yaml"), "--vae.batch_size", "2"])
    assert request.config.preset == "fast"
    assert (request.config.vae.batch_size, request.config.vae.precision) == (2, "auto")
    assert request.config.vae.epochs == PipelineConfig().vae.epochs
    assert (request.refresh, request.dry_run) == ((), False)


def test_stages_to_refresh_and_a_dry_run_are_asked_for_by_flags():
    request = parse(["--refresh", "vae", "--dry-run", "--refresh", "report"])
    assert (request.refresh, request.dry_run) == (("vae", "report"), True)
    assert request.config == PipelineConfig()


def test_a_setting_is_emptied_by_none(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("vae: {max_grad_norm: 1.5}\n")
    assert parse(["--config", str(file)]).config.vae.max_grad_norm == 1.5
    emptied = parse(["--config", str(file), "--vae.max_grad_norm", "None"])
    assert emptied.config.vae.max_grad_norm is None


@pytest.mark.parametrize("preset", ["seed", "fast", "demo"])
def test_every_preset_names_itself(preset):
    assert parse(["--config", str(CONFIGS / f"{preset}.yaml")]).config.preset == preset


@pytest.mark.parametrize(
    "root", ["/data/ChestXray14", "s3://bucket/ChestXray14", "s3://bucket/ChestXray14/"]
)
def test_a_run_is_named_by_data_set_split_and_preset(root):
    data, split = DataConfig(root=root), SplitConfig(method="official")
    name = run_name(PipelineConfig(data=data, split=split, preset="fast"))
    assert name == "ChestXray14-official-fast"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--config: there is no file .*absent\.yaml"):
        parse(["--config", str(tmp_path / "absent.yaml")])


def test_an_unknown_setting_of_a_file_is_refused(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("vae: {epoch: 3}\n")
    with pytest.raises(ValidationError, match=r"vae\.epoch"):
        parse(["--config", str(file)])


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["--vae.epoch", "3"])
    assert "unrecognized arguments: --vae.epoch" in capsys.readouterr().err
