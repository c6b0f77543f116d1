"""Flags and files into settings, and the help that names each of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_settings.exceptions import SettingsError

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
            if isinstance(setting.default, BaseModel):
                continue
            assert f"--{section}.{name} " in help_text
            meaning, default = " ".join(setting.description.split()), getattr(field.default, name)
            assert f"{meaning} (default: {default})" in words
    for flag in ("--config", "--refresh STAGE", "--dry-run ", "--preset"):
        assert flag in help_text


def test_help_fits_a_terminal_and_lists_sections_in_the_order_of_the_run(help_text):
    assert max(len(line) for line in help_text.splitlines()) <= 80
    sections = [line for line in help_text.splitlines() if line.endswith(" options:")]
    names = [line.removesuffix(" options:") for line in sections]
    assert [name for name in names if "." not in name] == [
        name for name in PipelineConfig.model_fields if name != "preset"
    ]
    assert "data.columns" in names
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


@pytest.mark.parametrize("preset", ["notebook", "fast", "demo"])
def test_every_preset_names_itself(preset):
    assert parse(["--config", str(CONFIGS / f"{preset}.yaml")]).config.preset == preset


@pytest.mark.parametrize(
    "root", ["/data/ChestXray14", "s3://bucket/ChestXray14", "s3://bucket/ChestXray14/"]
)
def test_a_run_is_named_by_data_set_split_and_preset(root):
    data, split = DataConfig(root=root), SplitConfig(method="official")
    name = run_name(PipelineConfig(data=data, split=split, preset="fast"))
    assert name == "ChestXray14-official-fast"


@pytest.fixture
def refusal(tmp_path):
    """What is said of wrong arguments, and of a file with some content."""

    def refused(*arguments: str, content: str | bytes | None = None) -> str:
        if content is not None:
            file = tmp_path / "settings.yaml"
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
            arguments = (f"--config={file}", *arguments)
        with pytest.raises(SettingsError) as caught:
            parse(list(arguments))
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def test_a_file_that_cannot_be_read_is_named(refusal, tmp_path):
    absent = str(tmp_path / "absent.yaml")
    assert refusal("--config", absent) == "--config: there is no file absent.yaml"
    assert refusal("--config", str(tmp_path)).endswith("is not a file")
    assert refusal("--config=").startswith("--config: the name of the file is empty")
    assert refusal(f"--config={'x' * 300}.yaml").endswith(": File name too long")


def test_one_file_is_read(refusal):
    text = refusal("--config", "a.yaml", "--config=b.yaml")
    assert text.startswith("--config is there twice: a.yaml and b.yaml. Give one file.")


def test_the_last_of_a_flag_given_twice_counts():
    assert parse(["--vae.epochs=3", "--vae.epochs=4"]).config.vae.epochs == 4


def test_a_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "settings.yaml").write_text("vae: {epochs: 3}")
    assert parse(["--config=~/settings.yaml"]).config.vae.epochs == 3


@pytest.mark.parametrize(
    "content, message",
    [
        ("vae: {epoch: 3}", "line 1: there is no setting vae.epoch; did you mean vae.epochs?"),
        ("vea:\n  epochs: 3", "line 1: there is no setting vea; did you mean vae?"),
        (
            "preset: a\nepochs: 3",
            "line 2: there is no setting epochs; did you mean vae.epochs or classifier.epochs?",
        ),
        ("dry-run: true", "line 1: there is no setting dry-run"),
        (
            "images:\n  fit: cropp",
            "line 2: images.fit: 'cropp' is not one of crop, pad, resize; did you mean crop?",
        ),
        (
            "vae:\n  lr: 1\n  epochs: many",
            "line 3: vae.epochs: Input should be a valid integer, unable to parse string as an "
            "integer, got 'many'",
        ),
        (
            "preset: 5",
            "line 1: preset: Input should be a valid string; in YAML put it in quotes, got 5",
        ),
        (
            "vae: {epochs: on}",
            "line 1: vae.epochs: Input should be a number or a word; without quotes, YAML "
            "reads yes, no, on and off as true and false",
        ),
        (
            "images:\n  size: 3",
            "line 2: images.size: Input should be a multiple of 64, such as 64 or 128, got 3",
        ),
    ],
)
def test_a_wrong_setting_of_a_file_is_told_with_its_line(refusal, content, message):
    assert refusal(content=content) == f"settings.yaml, {message}"


def test_settings_of_a_file_that_do_not_go_together_are_told_with_the_file(refusal):
    text = refusal(content="classifier: {patience: 3, weights: last}")
    assert text.startswith("settings.yaml: classifier.patience waits for a better epoch")


def test_a_flag_is_told_as_a_flag_and_heals_what_the_file_says(refusal, tmp_path):
    text = refusal("--vae.epochs=1e3", content="vae: {epochs: 3, lr: -1}")
    assert text.splitlines() == [
        "--vae.epochs: Input should be a valid integer, unable to parse string as an integer, "
        "got '1e3'",
        "settings.yaml, line 1: vae.lr: Input should be greater than 0, got -1",
    ]
    file = tmp_path / "settings.yaml"
    assert parse([f"--config={file}", "--vae.lr=1"]).config.vae.lr == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--vae.epoch", "3"], "--vae.epoch: there is no such flag; did you mean --vae.epochs?"),
        (
            ["--epochs=3"],
            "--epochs: there is no such flag; did you mean --vae.epochs or --classifier.epochs?",
        ),
        (["--vae", "{}"], "--vae is a section: its settings are given as --vae.NAME"),
        (["--dry-rum"], "--dry-rum: there is no such flag; did you mean --dry-run?"),
        (["stray"], "stray: it belongs to no flag; a setting is given as --SECTION.NAME VALUE"),
        (["--dry-run=yes"], "--dry-run: it takes no value, and 'yes' is given"),
        (
            ["--vae.lr", "-1e-3"],
            "--vae.lr: expected one argument (a value that begins with a dash is given as in "
            "--NAME=-VALUE)",
        ),
    ],
)
def test_a_wrong_flag_is_told_with_the_nearest_and_where_help_is(refusal, arguments, message):
    hint = "See python flows/main.py --help for every setting."
    assert refusal(*arguments).splitlines() == [message, hint]


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--vae.lr=nan", "Input should be a finite number, got 'nan'"),
        ("--vae.lr=inf", "Input should be a finite number, got 'inf'"),
        ("--vae.lr=-1", "Input should be greater than 0, got '-1'"),
        ("--images.size=1000", "Input should be a multiple of 64, such as 960 or 1024, got '1000'"),
        ("--runtime.device=gpu:1", "'gpu:1' is called 'cuda:1' here."),
        (
            "--runtime.device=cda",
            "'cda' is not one of auto, cpu, cuda, cuda:0, mps; did you mean cuda?",
        ),
        (
            "--refresh=vea",
            "'vea' is not one of index, images, split, vae, latents, classifier, baselines, "
            "pca_network, report, bundle; did you mean vae?",
        ),
        ("--vae.objective=l1kl", "'l1kl' is not one of l1_kl; did you mean l1_kl?"),
        ("--data.root=", "It is empty. Give a folder or a URL, or leave this setting out."),
    ],
)
def test_an_impossible_value_is_told_with_what_is_possible(refusal, argument, message):
    flag = argument.partition("=")[0]
    assert refusal(argument) == f"{flag}: {message}"


@pytest.mark.parametrize(
    "argument", ["--data.root=s3://me:hunter2@bucket/x", "--preset=s3://me:hunter2@bucket/x"]
)
def test_a_password_is_never_repeated(refusal, argument):
    assert "hunter2" not in refusal(argument)


def test_the_process_says_it_on_one_line_and_ends_with_2(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- vae\n")
    main = Path(__file__).parents[2] / "flows" / "main.py"
    command = [sys.executable, str(main), "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {file}, line 1: settings are sections")
    assert len(ended.stderr.splitlines()) == 1


def test_several_data_sets_and_nested_settings_come_from_a_file_or_from_flags(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("data: {sources: [{root: /a}, {root: /b, columns: {labels: [A]}}]}")
    data = parse(["--config", str(file)]).config.data
    assert [source.root for source in data.sources] == ["/a", "/b"]
    assert data.sources[1].columns.labels == ("A",)
    assert run_name(parse(["--config", str(file)]).config) == "a+b-patient-default"
    file.write_text("data: {columns: {labels: [A, B c], view: V}}")
    columns = parse(["--config", str(file), "--data.columns.view", "W"]).config.data.columns
    assert (columns.labels, columns.view) == (("A", "B c"), "W")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{sources: [{rot: /a}]}", r"data\.sources: The entry 1 of the list lacks its settin"),
        ("{sources: [{root: /a}, {root: /b, columns: {label: [A]}}]}",
         r"The entry 2 of the list has no setting called label"),
        ("{sources: [{root: /a, dataset: nihh}]}", r"'nihh' is not one of .* did you mean nih\?"),
        ("{root: /x, sources: [{root: /a}]}", r"data\.root is set too\. Move that into the list"),
        ("{columns: {lables: [A]}}", r"no setting data\.columns\.lables; did you mean data\.c"),
    ],
)  # fmt: skip
def test_mistakes_in_nested_settings_are_named(text, message, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(f"data: {text}")
    with pytest.raises(SettingsError, match=message):
        parse(["--config", str(file)])


def test_a_nested_section_needs_the_name_of_a_setting():
    with pytest.raises(
        SettingsError, match=r"--data\.columns is a section: .* --data\.columns\.NAME"
    ):
        parse(["--data.columns", "x"])
