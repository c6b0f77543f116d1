import dataclasses

import pandas as pd
import pytest

from cxrmodel.evaluation.audit.duplicates import Duplicates
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.report.prose import (
    MAX_NAMES,
    duration,
    further_verdicts,
    interval,
    label_limits,
    names_of,
    number,
    percent,
    plural,
    verdict,
    worries,
)


def with_difference(results, value, bounds):
    changed = dataclasses.replace(
        results.differences["pca_logistic"]["auroc"], value=value, interval=bounds
    )
    differences = results.differences | {
        "pca_logistic": results.differences["pca_logistic"] | {"auroc": changed}
    }
    return dataclasses.replace(results, differences=differences)


@pytest.mark.parametrize(
    ("value", "bounds", "claim"),
    [
        (0.1, (0.02, 0.18), "beats"),
        (-0.1, (-0.18, -0.02), "is worse than"),
        (0.1, (-0.02, 0.22), "cannot be told apart from"),
        (0.1, None, "cannot be told apart from"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(results, value, bounds, claim):
    alone = dataclasses.replace(
        results, differences={"pca_logistic": results.differences["pca_logistic"]}
    )
    sentence = verdict(with_difference(alone, value, bounds))
    score = number(results.classifier.macro["auroc"].value)
    assert sentence.startswith(
        f"The classifier on the latents (macro AUROC {score}) {claim} principal components with "
        f"logistic regressions ({value:+.3f}, "
    )
    expected = "without an interval" if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f})"
    assert expected in sentence


def test_the_verdict_names_each_baseline_once_under_its_claim(results):
    sentence = verdict(with_difference(results, -0.2, (-0.3, -0.1)))
    assert "beats chance (" in sentence
    assert "; it is worse than principal components with logistic regressions (-0.200" in sentence
    assert "age, sex and view" in sentence
    assert "memory" not in sentence  # it is chance where patients are apart
    leaking = dataclasses.replace(results, leaking_test_fraction=0.8)
    assert "a memory of the patient's other labels (" in verdict(leaking)


def test_the_verdict_leaves_out_age_sex_and_view_where_they_are_not_known(results):
    nothing = Estimate.undefined("no image")
    blind = {
        name: dataclasses.replace(one, pooled=nothing)
        for name, one in results.audit.shortcuts.items()
    }
    audit = dataclasses.replace(results.audit, shortcuts=blind)
    assert "age, sex and view" not in verdict(dataclasses.replace(results, audit=audit))


def test_many_names_are_counted():
    names = [f"Finding_{number}" for number in range(MAX_NAMES + 2)]
    assert names_of(names).endswith(f"Finding {MAX_NAMES - 1} and 2 more")
    assert names_of(names[:2]) == "Finding 0, Finding 1"


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("nih", "Labels were mined from radiology reports"),
        ("table", "Labels are as the data set gives them"),
        ("vindr-cxr", "Labels are as the data set gives them"),
        ("nih+table+chexpert", "Labels of NIH ChestX-ray14 and CheXpert were mined"),
    ],
)
def test_what_labels_are_worth_is_said_of_each_data_set(dataset, expected):
    assert label_limits(dataset).startswith(expected)


def test_published_scores_are_those_of_nih_alone(results, run):
    macro = {
        name: dataclasses.replace(x, value=0.9) for name, x in results.classifier.macro.items()
    }
    good = dataclasses.replace(
        results, classifier=dataclasses.replace(results.classifier, macro=macro)
    )
    own = dataclasses.replace(run, record=dataclasses.replace(run.record, dataset="table"))
    assert sum("published" in worry for worry in worries(good, run)) == 2
    assert not any("published" in worry for worry in worries(good, own))


def test_the_verdict_on_nothing_says_so(results):
    macro = results.classifier.macro | {"auroc": Estimate.undefined("why")}
    blind = dataclasses.replace(
        results, classifier=dataclasses.replace(results.classifier, macro=macro)
    )
    assert verdict(blind).startswith("The test images cannot tell")


def test_the_reconstruction_is_compared_with_thumbnails(results, run):
    errors = {"num_components": 64, "pca_l1": 0.9, "thumbnail_16_l1": 0.8, "thumbnail_32_l1": 0.001}
    changed = dataclasses.replace(run, compression=errors)
    assert further_verdicts(results, changed)[-1].endswith(
        "is lower than that of 64 principal components (0.9000), lower than that of a thumbnail of "
        "16 pixels a side (0.8000) and higher than that of one of 32 pixels (0.0010)."
    )


def test_worries_name_undefined_and_rare_pathologies(results, run):
    found = worries(results, run)
    assert any("no positive image in test (Hernia)" in worry for worry in found)
    assert any("13 of the 14 pathologies" in worry for worry in found)
    assert any("fewer than 10 test patients" in worry for worry in found)
    assert not any("synthetic" in worry or "also in train" in worry for worry in found)


def test_losses_and_what_was_interpreted_are_worries(results, run):
    excluded = pd.DataFrame(
        {"stage": "index", "image": [f"{n}.png" for n in range(40)], "reason": "unknown_label",
         "detail": "Cold"}
    )  # fmt: skip
    changed = dataclasses.replace(run, excluded=excluded, notes=["Names were matched."])
    *_, note, loss = worries(results, changed)
    assert note == "Names were matched."
    share = 100 * 40 / (40 + len(run.images))
    assert loss.startswith(
        f"40 of {40 + len(run.images):,} entries ({share:.1f} %) are left out as unknown_label, "
        "for example 0.png (Cold). Its row has a label"
    )
    few = dataclasses.replace(run, excluded=excluded[:1], notes=[])
    assert not any("left out" in worry for worry in worries(results, few))


def with_config(run, **sections):
    record = dataclasses.replace(run.record, config=run.record.config | sections)
    return dataclasses.replace(run, record=record)


def test_a_leak_is_the_first_worry_on_real_images(results, run):
    leaking = dataclasses.replace(results, leaking_test_fraction=0.813)
    by_rows = with_config(run, split={"method": "rows"})
    first = worries(leaking, by_rows)[0]
    assert first.startswith("81.3 % of the test images belong to a patient that is also in train.")
    assert "The split by rows" in first


def with_audit(results, **found):
    return dataclasses.replace(results, audit=dataclasses.replace(results.audit, **found))


def test_duplicates_and_a_shortcut_are_worries(results, run):
    view = results.audit.shortcuts["view"]
    drop = dataclasses.replace(view.drop, value=0.2, interval=(0.1, 0.3))
    planted = with_audit(
        results,
        duplicates=Duplicates([("a", "b"), ("c", "b")], [("d", "e")]),
        shortcuts={"view": dataclasses.replace(view, drop=drop)},
    )
    found = worries(planted, run)
    assert found[0] == (
        "3 test images are also in train or validation, 2 with equal and 1 with nearly equal "
        "pixels."
    )
    assert any(worry.startswith("A shortcut: among images that share the view") for worry in found)
    clean = worries(results, run)
    assert not any("shortcut" in worry or "also in train" in worry for worry in clean)


def test_miscalibration_is_a_worry_only_where_scaling_helps(results, run):
    for bounds, expected in (((-0.02, -0.01), True), ((-0.02, 0.01), False)):
        gain = dataclasses.replace(results.calibration.gain, value=-0.01, interval=bounds)
        calibration = dataclasses.replace(results.calibration, gain=gain)
        changed = dataclasses.replace(results, calibration=calibration)
        found = worries(changed, run)
        assert any("miscalibrated" in worry for worry in found) is expected


def test_synthetic_images_are_the_first_worry(results, run):
    synthetic = with_config(run, data={"root": "phantom"})
    assert worries(results, synthetic)[0].startswith("The images are synthetic")


def test_numbers_as_they_are_written():
    assert number(0.12345) == "0.123"
    assert number(None) == interval(None) == percent(None) == "\u2013"
    assert interval([0.1, 0.25], 2) == "0.10 to 0.25"
    assert percent(0.5) == "50.0 %"
    assert [plural(1, "image"), plural(1200, "image")] == ["1 image", "1,200 images"]
    assert [duration(s) for s in (1.25, 61, 3725)] == ["1.2 s", "1 min 01 s", "1 h 02 min"]


def test_a_number_that_rounds_to_nothing_has_no_minus():
    assert number(-0.0001) == "0.000"
    assert interval((-0.0001, 0.2), sign="+") == "+0.000 to +0.200"
