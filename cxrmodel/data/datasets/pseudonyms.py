"""Pseudonyms for patients, keyed by a salt that only the environment knows."""

from __future__ import annotations

import hashlib
import hmac
import os
import re

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.errors import DataError

SALT_VARIABLE = "CXRMODEL_PATIENT_SALT"
MIN_SALT_CHARS = 16
PSEUDONYM_CHARS = 16

_DIGITS = re.compile(r"\d+")


def patient_salt(config: DataConfig) -> bytes | None:
    """Return the salt of the environment; None where `data.hash_patient_ids` is off.

    Raises:
        DataError: The setting is on, and the salt is missing or too short.
    """
    if not config.hash_patient_ids:
        return None
    salt = os.environ.get(SALT_VARIABLE, "")
    if len(salt) < MIN_SALT_CHARS:
        raise DataError(
            f"data.hash_patient_ids is on, and the environment variable {SALT_VARIABLE} "
            f"{'is too short' if salt else 'is not set'}: set it to a secret, random text of at "
            f"least {MIN_SALT_CHARS} characters, the same for every run."
        )
    return salt.encode()


def pseudonyms(patient_ids: pd.Series, salt: bytes) -> pd.Series:
    """Return the HMAC-SHA-256 of each id under the salt, its first 16 hexadecimal digits."""
    distinct = {each: _pseudonym(str(each), salt) for each in patient_ids.unique()}
    return patient_ids.map(distinct).astype("str")


def _pseudonym(patient_id: str, salt: bytes) -> str:
    return hmac.digest(salt, patient_id.encode(), hashlib.sha256).hex()[:PSEUDONYM_CHARS]


def num_names_with_id(images: pd.Series, patient_ids: pd.Series) -> int:
    """Count the images whose name holds their patient's id, such as `00000013_005.png` of 13."""
    pairs = zip(images, patient_ids, strict=True)
    return sum(_holds(str(image), str(patient)) for image, patient in pairs)


def _holds(image: str, patient: str) -> bool:
    if patient.isdigit():
        return patient in {number.lstrip("0") or "0" for number in _DIGITS.findall(image)}
    return patient.casefold() in image.casefold()
