import hashlib
import hmac
import logging

import pandas as pd
import pytest

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.pseudonyms import num_names_with_id, patient_salt, pseudonyms
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError

SALT = "correct horse battery staple"


@pytest.fixture
def salt(monkeypatch):
    monkeypatch.setenv("CXRMODEL_PATIENT_SALT", SALT)


def patients(folder):
    return pd.read_parquet(folder / "index.parquet")["patient_id"].tolist()


def test_a_pseudonym_is_the_keyed_hash_of_the_id():
    expected = hmac.new(b"salt", b"17", hashlib.sha256).hexdigest()[:16]
    assert pseudonyms(pd.Series(["17", "3", "17"]), b"salt").tolist()[::2] == [expected] * 2
    assert pseudonyms(pd.Series(["3"]), b"salt").tolist() != [expected]


def test_the_index_has_pseudonyms_of_the_same_patients(make_root, index_of, salt):
    root = make_root(8)
    plain, hashed = patients(index_of(root)), patients(index_of(root, hash_patient_ids=True))
    assert len(set(zip(plain, hashed, strict=True))) == len(set(plain)) == len(set(hashed)) == 4
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in hashed)


def test_another_salt_is_another_source_and_off_needs_none(make_root, tmp_path, monkeypatch):
    root = str(make_root(2))

    def fingerprint(salt=None):
        if salt:
            monkeypatch.setenv("CXRMODEL_PATIENT_SALT", salt)
        config = DataConfig(root=root, hash_patient_ids=salt is not None)
        return scan_source(config, tmp_path / "scratch").fingerprint

    found = {fingerprint(), fingerprint(SALT), fingerprint(SALT), fingerprint(SALT + "!")}
    assert len(found) == 3


def test_the_salt_is_nowhere_in_what_is_written(make_root, index_of, tmp_path, salt, caplog):
    caplog.set_level(logging.DEBUG)
    index_of(make_root(2), hash_patient_ids=True)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (SALT.encode(), hashlib.sha256(SALT.encode()).hexdigest().encode()):
        assert not any(secret in content for content in written)
        assert secret.decode() not in caplog.text


@pytest.mark.parametrize(("value", "problem"), [(None, "is not set"), ("short", "is too short")])
def test_no_salt_says_what_to_set(value, problem, make_root, index_of, monkeypatch):
    monkeypatch.delenv("CXRMODEL_PATIENT_SALT", raising=False)
    if value:
        monkeypatch.setenv("CXRMODEL_PATIENT_SALT", value)
    message = rf"hash_patient_ids is on, and .* CXRMODEL_PATIENT_SALT {problem}: .*16 characters"
    with pytest.raises(DataError, match=message):
        index_of(make_root(2), hash_patient_ids=True)
    assert patient_salt(DataConfig()) is None


def test_file_names_that_hold_the_id_are_counted_in_the_log(make_root, index_of, salt, caplog):
    index_of(make_root(2), hash_patient_ids=True)
    assert "2 of 2 file names hold their patient's id" in caplog.text


def test_an_id_in_a_name_is_a_whole_number_or_any_part():
    images = pd.Series(["00000013_005.png", "00000013_005.png", "x_P-7.png", "0.png", "a.png"])
    ids = pd.Series(["13", "1", "p-7", "0", "13"])
    assert num_names_with_id(images, ids) == 3
