import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmodel.data.datasets.data_set import (
    parse_age,
    parse_follow_up,
    parse_patient_id,
    parse_sex,
    parse_view,
)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("58", 58),
        ("058Y", 58),
        ("58.0", 58),
        ("0", 0),
        ("018M", 1),
        ("003D", 0),
        ("060W", 1),
        ("120", 120),
        ("121", None),
        ("414", None),
        ("", None),
        ("-3", None),
        ("old", None),
        ("58.5", None),
    ],
)
def test_ages(text, years):
    assert parse_age(text) == years


@given(st.integers(0, 9999), st.sampled_from(["", "Y", "y", ".0", " Y"]), st.integers(0, 2))
def test_ages_of_any_spelling_are_the_number_or_absurd(years, unit, zeros):
    text = f"{years}{unit}" if years > 999 else "0" * zeros + f"{years}{unit}"
    if len(text.rstrip(".0Yy ")) > 4 or sum(c.isdigit() for c in text.split(".")[0]) > 4:
        return
    assert parse_age(text) == (years if years <= 120 else None)


@given(st.text())
def test_any_text_is_a_plausible_age_or_none(text):
    age = parse_age(text)
    assert age is None or 0 <= age <= 120


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        ("1", "1"),
        ("00001", "1"),
        ("1.0", "1"),
        ("0", "0"),
        ("P-07", "P-07"),
        ("e\u0301-1", "\u00e9-1"),
        ("", ""),
        ("nan", ""),
        *((text, "") for text in ("N/A", "None", "null", "-", "?", " UNKNOWN ", "<NA>", "#N/A")),
        ("Anonymous", ""),
        ("Nanette", "Nanette"),
        ("-1", "-1"),
        ("a\x00b", ""),
        ("9" * 65, ""),
    ],
)
def test_patient_ids(text, patient):
    assert parse_patient_id(text) == patient


@given(st.integers(0, 10**9), st.integers(0, 5))
def test_spellings_of_a_number_are_one_patient(number, zeros):
    spelled = {parse_patient_id("0" * zeros + f"{number}{end}") for end in ("", ".", ".0", ".00")}
    assert spelled == {str(number)}


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("AP", "AP"),
        (" pa ", "PA"),
        ("LL", "lateral"),
        ("rl", "lateral"),
        ("L", "lateral"),
        ("Lateral", "lateral"),
        ("LAT", "lateral"),
        ("left lateral", "lateral"),
        ("LLAT", "lateral"),
        ("LAT-R", "lateral"),
        ("XTABLE_LATERAL", "lateral"),
        ("SWIMMERS", "lateral"),
        ("AP AXIAL", None),
        ("Perfil", "lateral"),
        ("LLO", "lateral"),
        ("RAO", "lateral"),
        ("Oblique", "lateral"),
        ("LLD", "lateral"),
        ("AP RLD", "lateral"),
        ("PA and lateral", None),
        ("bilateral", None),
        ("flat panel", None),
        ("R", None),
        ("AP supine", None),
        ("", None),
        ("X", None),
    ],
)
def test_views(text, view):
    assert parse_view(text) == view


@pytest.mark.parametrize(
    ("text", "sex"), [("M", "M"), ("female ", "F"), ("Unknown", None), ("", None), ("O", None)]
)
def test_sexes(text, sex):
    assert parse_sex(text) == sex


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("003", 3),
        ("3.0", 3),
        ("2147483647", 2147483647),
        ("2147483648", None),
        ("-1", None),
        ("", None),
    ],
)
def test_follow_ups(text, number):
    assert parse_follow_up(text) == number
