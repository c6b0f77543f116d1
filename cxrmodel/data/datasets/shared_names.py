"""One name for a finding that several data sets label under names of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cxrmodel.data.datasets.labels import PATHOLOGIES

ALIASES: Mapping[str, str] = {
    "pleural effusion": "Effusion",
    "pleural effusions": "Effusion",
    "pulmonary edema": "Edema",
    "oedema": "Edema",
    "infiltrate": "Infiltration",
    "infiltrates": "Infiltration",
    "pulmonary fibrosis": "Fibrosis",
    "enlarged heart": "Cardiomegaly",
}
"""Names of NIH's pathologies elsewhere, as torchxrayvision (Cohen et al., MIDL 2022) maps them."""


def shared_names(label_lists: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return the name in a mix of data sets of each of their labels.

    Case, blanks and underscores do not tell labels apart. A pathology of NIH has NIH's name; for
    others the spelling that comes first.

    Args:
        label_lists: The labels of each data set.
    """
    spelling = {_canonical(name): name for name in PATHOLOGIES} | dict(ALIASES)
    return {
        name: spelling.setdefault(_canonical(name), name) for names in label_lists for name in names
    }


def _canonical(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
