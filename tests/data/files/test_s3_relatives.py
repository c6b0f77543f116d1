"""Stores that speak only part of S3, and buckets with odd content."""

import re

import boto3
import pytest

from cxrmodel.data.files.root import Root, read_location
from cxrmodel.errors import ChecksumError, DataError, FileChangedError
from tests.servers.fault_proxy import FaultProxy

NAMES = [f"images/{number:08d}_000.png" for number in range(25)]


@pytest.fixture
def relative(s3, s3_endpoint, monkeypatch):
    """Return a proxy before a bucket of 25 objects, to be made a store that knows less."""
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for name in NAMES:
        client.put_object(Bucket="xrays", Key=f"nih/{name}", Body=name.encode())
    proxy = FaultProxy(s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.stop()


def contents_of(root):
    return {file.uri: root.read(file.uri, version=file.version) for file in root.files()}


EXPECTED = {name: name.encode() for name in NAMES}


def knows_version_1_alone(target):
    """Take a listing of version 2 for one of version 1, ten keys a page."""
    return target.replace("list-type=2", "max-keys=10") if "prefix=" in target else target


def pages_of_ten(target):
    return f"{target}&max-keys=10" if "prefix=" in target else target


def test_listings_of_version_1_are_read_whole(relative):
    relative.ask = lambda target: pages_of_ten(knows_version_1_alone(target))
    assert contents_of(Root("s3://xrays/nih")) == EXPECTED
    assert relative.counts["LIST"] == 3


def test_pages_of_version_2_are_read_whole(relative):
    relative.ask = pages_of_ten
    assert len(Root("s3a://xrays/nih/").files()) == 25
    assert relative.counts["LIST"] == 3


def without(pattern, header=None):
    """Return what cuts a pattern out of listings, or a header out of each answer."""

    def answer(headers, body):
        if b"<ListBucketResult" in body:
            return headers, re.sub(pattern, b"", body, flags=re.DOTALL)
        return [pair for pair in headers if pair[0].lower() != header], body

    return answer


def test_a_listing_that_cannot_be_gone_on_with_is_an_error_that_says_so(relative):
    relative.ask = lambda target: pages_of_ten(target.partition("&marker=")[0])
    relative.answer = without(rb"<NextContinuationToken>.*?</NextContinuationToken>")
    message = r"Cannot list s3://xrays/nih/: the store's answer lacks a NextContinuationToken or"
    with pytest.raises(DataError, match=message):
        Root("s3://xrays/nih").files()


def test_a_listing_without_sizes_is_an_error_that_says_so(relative):
    relative.answer = without(rb"<Size>.*?</Size>")
    with pytest.raises(DataError, match=r"answer lacks 'Size' of 'nih/images/00000000_000\.png'"):
        Root("s3://xrays/nih").files()


class TestWithoutETag:
    """The time of modification is the version instead."""

    @pytest.fixture(autouse=True)
    def lists_none(self, relative):
        relative.answer = without(rb"<ETag>.*?</ETag>")

    def test_all_is_read_and_the_log_says_what_is_lacking(self, relative, caplog):
        assert contents_of(Root("s3://xrays/nih")) == EXPECTED
        assert "The listing of s3://xrays/nih/ gives no ETag for 25 objects" in caplog.text

    def test_what_was_replaced_is_refused(self, relative):
        root = Root("s3://xrays/nih")
        file = root.files()[0]
        before = f"{int(file.version[:4]) - 1}{file.version[4:]}"
        with pytest.raises(FileChangedError, match=r"was replaced after it was listed"):
            root.read(file.uri, version=before)

    def test_a_corrupt_byte_is_noticed_by_the_etag_of_the_answer(self, relative):
        root = Root("s3://xrays/nih")
        file = root.files()[0]
        relative.add("corrupt", "GET")
        with pytest.raises(ChecksumError, match="3 times with another checksum than the"):
            root.read(file.uri, version=file.version)


class TestWithoutETagHeader:
    """The listed ETag is what the body is compared with."""

    def test_all_is_read(self, relative):
        relative.answer = without(rb"nothing", header="etag")
        assert contents_of(Root("s3://xrays/nih")) == EXPECTED

    def test_a_corrupt_byte_is_noticed(self, relative):
        relative.answer = without(rb"nothing", header="etag")
        root = Root("s3://xrays/nih")
        file = root.files()[0]
        relative.add("corrupt", "GET", times=1)
        assert root.read(file.uri, version=file.version) == EXPECTED[file.uri]
        assert relative.counts["GET"] == 2


def test_of_a_versioned_bucket_the_current_objects_are_the_data_set(s3, s3_endpoint):
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    enabled = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket="xrays", VersioningConfiguration=enabled)
    for body in (b"old", b"new"):
        client.put_object(Bucket="xrays", Key="nih/a.png", Body=body)
        client.put_object(Bucket="xrays", Key="nih/b.png", Body=body)
    client.delete_object(Bucket="xrays", Key="nih/b.png")
    assert contents_of(Root("s3://xrays/nih")) == {"a.png": b"new"}
    for each in client.list_object_versions(Bucket="xrays")["Versions"]:
        client.delete_object(Bucket="xrays", Key=each["Key"], VersionId=each["VersionId"])
    for each in client.list_object_versions(Bucket="xrays").get("DeleteMarkers", []):
        client.delete_object(Bucket="xrays", Key=each["Key"], VersionId=each["VersionId"])


def test_a_table_elsewhere_in_s3_is_read_as_images_are(relative):
    assert read_location(f"s3://xrays/nih/{NAMES[3]}") == NAMES[3].encode()
    relative.add("corrupt", "GET", times=1)
    assert read_location(f"s3://xrays/nih/{NAMES[3]}") == NAMES[3].encode()
    with pytest.raises(DataError, match=r"Cannot read s3://xrays/nowhere\.csv: it does not exist"):
        read_location("s3://xrays/nowhere.csv")


def test_a_url_without_a_bucket_says_so():
    with pytest.raises(DataError, match=r"s3:///nih names no bucket: write s3://BUCKET/PREFIX\."):
        Root("s3:///nih")
