import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmodel.data.datasets.labels import PATHOLOGIES, label_matrix, parse_labels
from cxrmodel.data.ledger import Reason


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("No Finding", set()),
        ("no_finding", set()),
        ("Mass", {"Mass"}),
        ("Mass|Hernia", {"Mass", "Hernia"}),
        (" mass | Pleural Thickening |", {"Mass", "Pleural_Thickening"}),
        ("PLEURAL_THICKENING", {"Pleural_Thickening"}),
        ("Mass|Mass", {"Mass"}),
        ("Mass;Hernia", {"Mass", "Hernia"}),
        ("Mass, pleural thickening", {"Mass", "Pleural_Thickening"}),
        ("Pleural_Thickening Mass", {"Mass", "Pleural_Thickening"}),
        ("['Mass', 'Hernia']", {"Mass", "Hernia"}),
        ("Mass\nHernia|Edema", {"Mass", "Hernia", "Edema"}),
    ],
)
def test_reads_labels(text, findings):
    parsed = parse_labels(text)
    assert (parsed.findings, parsed.reason) == (findings, None)


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", Reason.EMPTY_LABELS, ""),
        (" | ", Reason.EMPTY_LABELS, ""),
        ("Mass|Infiltrate", Reason.UNKNOWN_LABEL, "Infiltrate"),
        ("Mass;Cold", Reason.UNKNOWN_LABEL, "Mass;Cold"),
        ("Mass/Nodule", Reason.UNKNOWN_LABEL, "Mass/Nodule"),  # it may mean either
        ("Mass?", Reason.UNKNOWN_LABEL, "Mass?"),
        ("Mass; No Finding", Reason.CONTRADICTORY_LABELS, "Mass; No Finding"),
        ("No Finding|Mass", Reason.CONTRADICTORY_LABELS, "No Finding|Mass"),
    ],
)
def test_refuses_labels_with_a_reason(text, reason, detail):
    parsed = parse_labels(text)
    assert (parsed.findings, parsed.reason, parsed.detail) == (frozenset(), reason, detail)


@given(
    st.sets(st.sampled_from(PATHOLOGIES), min_size=1),
    st.sampled_from([str.upper, str.lower, str]),
    st.sampled_from([" ", "_"]),
    st.sampled_from(["|", " | ", "||"]),
)
def test_any_spelling_of_any_set_is_read_back(names, case, space, separator):
    text = separator.join(case(name).replace("_", space) for name in sorted(names))
    assert parse_labels(text).findings == names


@given(st.text())
def test_any_text_gives_known_findings_or_a_reason(text):
    parsed = parse_labels(text)
    assert parsed.findings <= set(PATHOLOGIES)
    assert parsed.reason is None or not parsed.findings


def test_matrix_has_a_column_a_pathology_and_keeps_the_rows():
    texts = pd.Series(["Hernia|Atelectasis", "No Finding", "Oops", "Hernia|Atelectasis"])
    hot, reasons, details = label_matrix(texts)
    expected = np.zeros((4, 14), np.uint8)
    expected[[0, 0, 3, 3], [0, 7, 0, 7]] = 1  # Atelectasis is the first name, Hernia the eighth
    np.testing.assert_array_equal(hot, expected)
    assert hot.dtype == np.uint8
    assert reasons.tolist() == ["", "", "unknown_label", ""]
    assert details.tolist() == ["", "", "Oops", ""]


def test_labels_joined_by_another_sign_are_counted_in_the_log(caplog):
    hot, reasons, _ = label_matrix(pd.Series(["Mass;Hernia", "Mass", "Mass;Hernia", "Cold"]))
    assert hot.sum(axis=1).tolist() == [2, 1, 2, 0]
    assert reasons.tolist() == ["", "", "", "unknown_label"]
    assert "2 rows join their labels by other characters than |, as in 'Mass;Hernia'" in caplog.text
