"""Files of settings: each that cannot be used is refused in one line that says where and why."""

from itertools import pairwise

import pytest

from flows.settings_file import MAX_BYTES, SettingsFileError, read_settings_file

NAMES = ("preset", "vae", "vae.epochs", "vae.lr")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcde")
)


def test_values_come_with_their_lines(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xef\xbb\xbfpreset: &name m\xc3\xbc\nvae:\n  epochs: 3\n")
    found = read_settings_file(path, NAMES)
    assert found.values == {"preset": "mü", "vae": {"epochs": 3}}
    assert found.lines == {"preset": 1, "vae": 2, "vae.epochs": 3}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", ": it is empty. "),
        (b"# nothing\n", ": it is empty. "),
        (b"- vae\n", ", line 1: settings are sections, and here is a list. "),
        (b"vae", ", line 1: settings are sections, and here is the value 'vae'. "),
        (b"preset: a\nvae: 3\n", ", line 2: vae is a section, and here is the value '3'. "),
        (b"preset: a\nvae:\n", ", line 2: vae is a section, and here is nothing. "),
        (b"preset: a\n# \xfc\n", ", line 2: it is not UTF-8 (byte 0xfc). Save the file as UTF-8."),
        ("preset: a".encode("utf-16"), ", line 1: it is not UTF-8 (byte 0xff). "),
        (b"preset: a\nvae: {lr: \0}", ", line 2: the character U+0000 is not allowed."),
        (b"vae:\n\tlr: 1", ", line 2: found character '\\t' that cannot start any token. Indent"),
        (b"vae: {lr: 1\n", ", line 2: expected ',' or '}', but got '<stream end>'."),
        (b"preset: a\n---\npreset: b", ", line 2: expected a single document in the stream, but"),
        (b"vae: {}\npreset: a\nvae: {}", ", line 3: vae is there twice, on line 1 too. Keep one"),
        (
            b"vae:\n  lr: 1\n  lr: 2",
            ", line 3: lr is there twice, on line 2 too. Keep one of them.",
        ),
        (b"1: a", ", line 1: 1 is not a name of a setting."),
        (b"vae:\n  on: 1", ", line 2: on is not a name of a setting."),
        (b"? [vae]\n: 1", ", line 1: a list is not a name of a setting."),
        (b"vae: {<<: {lr: 1}}", ", line 1: << is not a name of a setting."),
        (b"vae: {epoch: 1}", ", line 1: there is no setting vae.epoch; did you mean vae.epochs?"),
        (b"vae: {epochs: 010}", ", line 1: YAML reads 010 as another number. "),
        (b"vae: {epochs: 1:30}", ", line 1: YAML reads 1:30 as another number. "),
        (b"vae: {lr: 1:30.5}", ", line 1: YAML reads 1:30.5 as another number. "),
        (b"vae: {lr: !!bool x}", ", line 1: 'x' is not what its tag !!bool says."),
        (b"vae: {lr: !!timestamp x}", ", line 1: 'x' is not what its tag !!timestamp says."),
        (b"vae: {lr: !!int ''}", ", line 1: '' is not what its tag !!int says."),
        (b"vae.lr: 1", ", line 1: vae.lr is a setting of a section: write it as `vae: {lr: …}`."),
        (b"preset: 2024-13-01", ", line 1: month must be in 1..12."),
        (b"preset: !!python/name:os.system", ", line 1: could not determine a constructor"),
        (BOMB.encode(), ": with its aliases written out it has more than 10,000 values. "),
        (b"vae: &vae {lr: *vae}", ": with its aliases written out it has more than 10,000"),
        (b"[" * 5000, ": its values are nested too deeply."),
        (b"#" * (MAX_BYTES + 1), ": it has 1,048,577 bytes, too many for settings."),
    ],
)
def test_what_is_no_file_of_settings_is_refused(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsFileError) as caught:
        read_settings_file(path, NAMES)
    text = str(caught.value)
    assert text.startswith(f"{path}{message}")
    assert "\n" not in text
