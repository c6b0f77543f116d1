"""What reading from a real S3 server does when the network or the server misbehaves."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxrmodel.data.files import s3
from cxrmodel.data.files.root import Root
from cxrmodel.errors import ChecksumError, DataError, FileChangedError
from cxrmodel.storage import retry
from cxrmodel.storage.retry import NUM_READS

pytestmark = pytest.mark.integration

IMAGES = {f"images/{number:08d}_000.png": bytes([number]) * 20_000 for number in range(16)}


@pytest.fixture
def root(ceph, bucket, proxy, monkeypatch):
    """Return a root of 16 objects behind the proxy, whose client waits for 1 s at most."""
    client = ceph.client()
    for name, content in IMAGES.items():
        client.put_object(Bucket=bucket, Key=f"nih/{name}", Body=content)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    return Root(f"s3://{bucket}/nih")


def read_all(root):
    files = root.files()
    with ThreadPoolExecutor(8) as pool:
        contents = pool.map(lambda file: root.read(file.uri, version=file.version), files)
        return {file.uri: content for file, content in zip(files, contents, strict=True)}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("reply", {"share": 0.3}),
        ("reply", {"share": 0.3, "status": 500, "code": "InternalError"}),
        ("latency", {"seconds": 0.2}),
        ("hang", {"times": 2}),
        ("reset", {"share": 0.3}),
        ("truncate", {"share": 0.3}),
        ("stall", {"times": 2}),
    ],
    ids=["503", "500", "latency", "hang", "reset", "truncate", "stall"],
)
def test_all_is_listed_and_read_right(kind, settings, root, proxy):
    fault = proxy.add(kind, **settings)
    assert read_all(root) == IMAGES
    assert fault.injected >= 2
    assert proxy.peak_connections <= 12  # of 8 threads, and some that hang


def test_a_listing_that_breaks_off_is_listed_again(root, proxy):
    fault = proxy.add("truncate", "LIST", times=1)
    assert [file.uri for file in root.files()] == sorted(IMAGES)
    assert (fault.injected, proxy.counts["LIST"]) == (1, 2)


def test_a_corrupt_byte_is_read_again(root, proxy):
    fault = proxy.add("corrupt", "GET", times=3)
    assert read_all(root) == IMAGES
    assert (fault.injected, proxy.counts["GET"]) == (3, len(IMAGES) + 3)


def test_a_byte_that_is_always_corrupt_is_an_error_that_names_the_file(root, proxy, bucket):
    proxy.add("corrupt", "GET .*00000007")
    file = root.files()[7]
    message = rf"s3://{bucket}/nih/images/00000007_000.png came 3 times with another MD5"
    with pytest.raises(ChecksumError, match=message):
        root.read(file.uri, version=file.version)
    assert proxy.counts["GET"] == NUM_READS


def test_a_corrupt_byte_in_a_file_without_a_listed_version_is_noticed_too(root, proxy):
    proxy.add("corrupt", "GET", times=1)
    assert root.read("images/00000007_000.png") == IMAGES["images/00000007_000.png"]
    assert proxy.counts["GET"] == 2


def test_an_etag_that_is_no_md5_as_a_key_was_used_is_not_compared(root, proxy):
    proxy.add("encrypted", "GET", times=1)
    file = root.files()[7]
    content = root.read(file.uri, version=file.version)
    assert (len(content), content != IMAGES[file.uri], proxy.counts["GET"]) == (20_000, True, 1)


def test_an_object_replaced_since_it_was_listed_is_refused_not_mixed(root, ceph, bucket, proxy):
    file = root.files()[0]
    ceph.client().put_object(Bucket=bucket, Key=f"nih/{file.uri}", Body=b"\1" * 20_000)
    with pytest.raises(FileChangedError, match=rf"{file.uri} was replaced after it was listed"):
        root.read(file.uri, version=file.version)
    assert proxy.counts["GET"] == 1
    (file,) = (again for again in root.files() if again.uri == file.uri)
    assert root.read(file.uri, version=file.version) == b"\1" * 20_000


def test_an_object_deleted_since_it_was_listed_is_named(root, ceph, bucket, proxy):
    file = root.files()[0]
    ceph.client().delete_object(Bucket=bucket, Key=f"nih/{file.uri}")
    with pytest.raises(FileNotFoundError, match=rf"the object of s3://.*{file.uri} does not"):
        root.read(file.uri, version=file.version)
    assert proxy.counts["GET"] == 1
    assert root.exists()


def test_a_multipart_object_is_read_and_its_replacement_is_noticed(root, ceph, bucket):
    key = "nih/images/big.png"
    client, part = ceph.client(), {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**part)["UploadId"]
    etag = client.upload_part(**part, UploadId=upload, PartNumber=1, Body=b"abc")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    client.complete_multipart_upload(**part, UploadId=upload, MultipartUpload=parts)
    (file,) = (file for file in root.files() if file.uri == "images/big.png")
    assert file.version.endswith("-1")  # no MD5 of the content
    assert root.read(file.uri, version=file.version) == b"abc"
    client.put_object(**part, Body=b"abd")
    with pytest.raises(FileChangedError):
        root.read(file.uri, version=file.version)


def test_the_server_goes_away_and_comes_back(ceph, bucket, monkeypatch, root):
    monkeypatch.setenv("AWS_ENDPOINT_URL", ceph.endpoint)
    root = Root(root.root)
    files = root.files()
    ceph.stop_gateway()
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(root.read, file.uri, version=file.version) for file in files]
        time.sleep(1)
        were_done = [read.done() for read in reads]
        ceph.start_gateway()
        assert [read.result() for read in reads] == list(IMAGES.values())
    assert not any(were_done)


def test_a_server_that_stays_away_is_an_error_that_names_the_file(root, proxy, monkeypatch):
    proxy.add("reset")
    monkeypatch.setattr(retry, "PATIENCE_S", 0.3)
    with pytest.raises(ConnectionError, match=r"s3:GetObject on s3://.*/nih/images/x\.png failed"):
        root.read("images/x.png")
    assert proxy.counts["GET"] >= 2


def test_credentials_that_expire_are_refreshed(root, proxy, ceph, tmp_path, monkeypatch):
    access_key, secret_key = ceph.credentials
    current = tmp_path / "current.json"

    def issue(secret):
        expiration = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # soon, to boto3
        issued = {"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": secret}
        current.write_text(json.dumps(issued | {"Expiration": expiration}))

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    print_it = f"{sys.executable} -c 'print(open(\"{current}\").read())'"
    config = Path(os.environ["AWS_CONFIG_FILE"])
    config.write_text(f"[default]\ncredential_process = {print_it}\n")
    issue(secret_key)
    root = Root(root.root)
    first, second, third, *_ = root.files()
    assert root.read(first.uri, version=first.version) == IMAGES[first.uri]
    issue("revoked")
    with pytest.raises(PermissionError, match="SignatureDoesNotMatch"):
        root.read(second.uri, version=second.version)
    issue(secret_key)
    assert root.read(third.uri, version=third.version) == IMAGES[third.uri]


class TestRefusals:
    """A refusal is final: one request, and an error that says which action on which bucket."""

    @pytest.fixture(autouse=True)
    def one_request(self, proxy):
        yield
        assert sum(proxy.counts.values()) == 1

    def test_wrong_secret(self, bucket, proxy, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        message = rf"Cannot list s3://{bucket}: access is denied \(s3:ListBucket on s3://{bucket}/ "
        with pytest.raises(DataError, match=message + "was refused .SignatureDoesNotMatch"):
            Root(f"s3://{bucket}").files()

    def test_unknown_key(self, bucket, proxy, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        with pytest.raises(PermissionError, match=rf"s3:GetObject on s3://{bucket}/a.png was"):
            Root(f"s3://{bucket}").read("a.png")

    def test_another_users_bucket(self, ceph, bucket, proxy, monkeypatch):
        stranger = ceph.add_user(f"stranger-{bucket[-8:]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", stranger.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stranger.secret_key)
        with pytest.raises(DataError, match=r"access is denied .*AccessDenied.*Credentials come"):
            Root(f"s3://{bucket}").files()

    def test_expired_token(self, bucket, proxy):
        proxy.add("reply", status=400, code="ExpiredToken")
        with pytest.raises(PermissionError, match=rf"s3:GetObject on s3://{bucket}/a.png .*Expir"):
            Root(f"s3://{bucket}").read("a.png")

    def test_missing_bucket(self, bucket, proxy):
        with pytest.raises(DataError, match="Cannot list s3://no-such-bucket: it does not exist"):
            Root("s3://no-such-bucket").files()

    def test_missing_bucket_at_a_read(self, bucket, proxy):
        with pytest.raises(FileNotFoundError, match=r"the bucket of s3://no-such-bucket/a.png"):
            Root("s3://no-such-bucket").read("a.png")
