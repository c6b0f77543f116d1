"""Files of sweeps: what they mean, and one line for each that cannot be used."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError

from cxrmodel.config import VAEConfig
from cxrmodel.sweep_config import SweepConfig
from flows.command_line import SETTINGS
from flows.settings_file import read_settings_file
from flows.sweep_file import read_command

PROJECT = Path(__file__).parents[2]
SWEEP = """\
base: base.yaml
seeds: 2
choose_by: l1
settings:
  plain: {}
  more epochs, 1e-4:
    vae: {epochs: 7, lr: 1.0e-4}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text("vae: {lr: 1.0e-3, seed: 9}\nimages: {size: 64}\n")

    def to_file(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return to_file


def test_runs_are_the_base_with_each_change_and_seed(write):
    config, is_dry_run = read_command([write(SWEEP), "--vae.lr=0.5", "--images.size", "128"])
    assert not is_dry_run
    assert (config.name, config.choose_by, config.seeds) == ("mine", "l1", (0, 1))
    found = [
        (run.setting, run.seed, run.config.vae.seed, run.config.classifier.seed,
         run.config.vae.lr, run.config.vae.epochs, run.config.images.size)
        for run in config.runs()
    ]  # fmt: skip
    assert found == [
        ("plain", 0, 0, 0, 0.5, 10, 128),
        ("more epochs, 1e-4", 0, 0, 0, 1e-4, 7, 128),  # a setting goes before a flag
        ("plain", 1, 1, 1, 0.5, 10, 128),
        ("more epochs, 1e-4", 1, 1, 1, 1e-4, 7, 128),
    ]
    seed_of_split = {run.config.split.seed for run in config.runs()}
    assert seed_of_split == {42}  # the same images for all
    assert read_command([write(SWEEP), "--dry-run"])[1]


def test_a_base_may_be_written_in_place_or_left_out(write):
    config, _ = read_command([write("base: {vae: {lr: 0.5}}\nsettings: {a: {}}\nseeds: [4]")])
    assert config.base.vae.lr == 0.5
    assert config.seeds == (4,)
    config, _ = read_command([write("settings: {a: {}}")])
    assert (config.seeds, config.choose_by) == ((0, 1, 2), "macro_auroc")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "mine.yaml: it is empty. "),
        ("[a]", ", line 1: a sweep has the fields base, settings, seeds, choose_by, and here is"),
        ("seeds: 2", ", line 1: there are no settings to compare. "),
        ("settings: {}", ", line 1: settings has each setting's changes by its name, and here is"),
        ("settings: [a]", ", line 1: settings has each setting's changes by its name, and here is"),
        ("settings: {a: {}}\nseed: 2", ", and no seed; did you mean seeds?"),
        ("settings:\n  a: {}\n  a: {}", ", line 3: a is there twice, on line 2 too. "),
        ("settings:\n  0.5: {}", ", line 2: 0.5 is not a name of a setting."),
        (
            "settings:\n  a: {}\n  b:\n    vae: {epoch: 3}",
            ", line 4: there is no setting vae.epoch; did you mean vae.epochs?",
        ),
        ("settings:\n  a:\n    vae: {epochs: 0}", ", line 3: vae.epochs: Input should be greater"),
        ("settings:\n  a:\n    vae.epochs: 3", ", line 3: vae.epochs is a setting of a section"),
        ("settings:\n  a:", ", line 2: settings are sections, and here is nothing. "),
        ("settings: {a: {vae: {objective: l2}}}", "vae.objective: 'l2' is not one of l1_kl"),
        ("settings: {a: {data: {fraction: 0.5}}}", "The setting 'a' changes data, and the settin"),
        ("settings: {a: {store: {root: x}}}", "The setting 'a' changes store, "),
        ("settings: {a: {vae: {seed: 3}}}", "The setting 'a' sets vae.seed, which `seeds` says. "),
        ("settings: {a: {}, b: {vae: {epochs: 10}}}", "The settings 'a' and 'b' are the same. "),
        (
            "choose_by: l1\nsettings: {a: {images: {size: 64}}}",
            "'a' changes the images, whose ",
        ),
        (
            "choose_by: test_auroc\nsettings: {a: {}}",
            "choose_by: 'test_auroc' is not one of ",
        ),
        ("seeds: []\nsettings: {a: {}}", "seeds: It has no seed. Give a number"),
        ("seeds: 0\nsettings: {a: {}}", "seeds: It has no seed. "),
        ("seeds: [1, 1]\nsettings: {a: {}}", "seeds: A seed is there twice in [1, 1]. "),
        ("seeds: [-1]\nsettings: {a: {}}", "seeds: A seed is from 0 to 4294967295."),
        ("seeds: 2026\nsettings: {a: {}}", "seeds: A sweep has up to 100 seeds."),
        ("seeds: yes\nsettings: {a: {}}", "seeds: Give a number N for the seeds 0 to N - 1"),
        ("base: none.yaml\nsettings: {a: {}}", "mine.yaml: base: there is no file "),
        ("base: {vae: {lr: x}}\nsettings: {a: {}}", ", line 1: vae.lr: Input should be a valid"),
        ("base: [a]\nsettings: {a: {}}", ", line 1: settings are sections, and here is a list"),
        (f"settings: {{{'a' * 61}: {{}}}}", "A setting needs a name of 1 to 60 characters"),
        ('settings: {"a\\nb": {}}', "A setting needs a name of 1 to 60 characters"),
        ("settings: {' a': {}}", "A setting needs a name of 1 to 60 characters"),
        ("seeds: '3'\nsettings: {a: {}}", "seeds: Give a number N for the seeds 0 to N - 1"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(write, text, message):
    with pytest.raises(SettingsError) as caught:
        read_command([write(text)])
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["my sweep.yaml", "...yaml", f"{'a' * 61}.yaml"])
def test_a_file_whose_name_cannot_be_a_folder_below_the_store(tmp_path, name):
    (tmp_path / name).write_text("settings: {a: {}}")
    with pytest.raises(SettingsError, match="The sweep's folder is named after its file"):
        read_command([str(tmp_path / name)])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "The first argument is the file of a sweep, such as configs/sweeps/ablation.yaml."),
        (["--vae.lr", "1"], "The first argument is the file of a sweep"),
        (["nowhere.yaml"], "The sweep: there is no file "),
        (["SWEEP", "--config", "x.yaml"], "--config is not for a sweep"),
        (["SWEEP", "--refresh", "vae"], "--refresh is not for a sweep"),
        (["SWEEP", "--vae.seed=3"], "--vae.seed is not for a sweep"),
        (["SWEEP", "--vae.epoch", "3"], "--vae.epoch: there is no such flag; did you mean"),
        (["SWEEP", "more"], "more: it belongs to no flag"),
    ],
)
def test_a_command_line_that_cannot_be_used(write, arguments, message):
    file = write(SWEEP)
    with pytest.raises(SettingsError) as caught:
        read_command([file if word == "SWEEP" else word for word in arguments])
    assert str(caught.value).startswith(message)


def test_a_form_is_checked_as_a_file_is():
    """In Prefect's page there is no file: the same rules hold."""
    for change, message in (
        ({"vae": {"epoch": 3}}, "'a': vae.epoch: There is no such setting; did you mean"),
        ({"vae": {"epochs": 0}}, "'a': vae.epochs: Input should be greater than 0"),
        ({"vae": 3}, "The setting 'a': vae: It is a section"),
        ({"data": {"root": "x"}}, "changes data"),
    ):
        with pytest.raises(ValidationError, match=message):
            SweepConfig(settings={"a": change})


def test_the_ablation_is_a_sweep():
    config, _ = read_command(
        [str(PROJECT / "configs/sweeps/ablation.yaml"), "--data.root", "FOLDER"]
    )
    tuned, *without = config.settings.items()
    assert tuned == ("tuned", {"vae": {"epochs": 40}})
    assert len(without) == 8
    assert config.base.preset == "tuned"
    notebook = read_settings_file(PROJECT / "configs/notebook.yaml", SETTINGS).values["vae"]
    runs = {run.setting: run.config for run in config.runs()}
    vae = runs["notebook, 46 epochs"].vae.model_dump()
    defaults = VAEConfig(**notebook).model_dump()
    assert {n for n, value in vae.items() if value != defaults[n]} == {"epochs", "seed"}
    assert len(list(config.runs())) == 27
