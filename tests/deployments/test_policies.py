"""The policies of the roles, enforced by an S3 server that checks every request against them."""

import json
import urllib.request
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from cxrmodel.config import DRIFT_FOLDER, EVALUATIONS_FOLDER, SWEEPS_FOLDER
from cxrmodel.storage.aliases import Aliases
from cxrmodel.storage.store import Store
from cxrmodel.storage.whole_folder import publish_folder

POLICIES = Path(__file__).parents[2] / "deployments" / "iam"
RECORD = "cxr-store/cxr/_results/vae-1"
ALIAS = "cxr-store/cxr/_aliases/candidate.json"
REPORT = "cxr-store/cxr/report/1/report.html"
PAGES = [
    f"cxr-store/cxr/{folder}/1/page.html"
    for folder in (DRIFT_FOLDER, EVALUATIONS_FOLDER, SWEEPS_FOLDER)
]
ROLES = ("worker", "reader", "collector")


@pytest.fixture(scope="module")
def roles():
    """Environment of each role on one server, which refuses what a role's policy does not allow."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    access = {"endpoint_url": url, "region_name": "us-east-1"}
    admin = {**access, "aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
    s3, iam = boto3.client("s3", **admin), boto3.client("iam", **admin)
    for bucket in ("cxr-data", "cxr-store"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="cxr-data", Key="nih/Data_Entry_2017.csv", Body=b"x")
    for path in (RECORD, REPORT, ALIAS, *PAGES):
        s3.put_object(Bucket="cxr-store", Key=path.removeprefix("cxr-store/"), Body=b"x")
    environments = {}
    for role in ROLES:
        policy = (POLICIES / f"{role}.json").read_text()
        policy = policy.replace("DATA-BUCKET", "cxr-data").replace("STORE-BUCKET", "cxr-store")
        # This server knows HEAD of a bucket by a name of its own; for AWS it is ListBucket too.
        policy = policy.replace('"s3:ListBucket"', '"s3:ListBucket", "s3:HeadBucket"')
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=policy)
        key = iam.create_access_key(UserName=role)["AccessKey"]
        environments[role] = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    check_requests(url, after=b"0")
    yield environments
    check_requests(url, after=b"inf")  # servers of one process share their state
    urllib.request.urlopen(f"{url}/moto-api/reset", data=b"").close()
    server.stop()


def check_requests(url: str, after: bytes) -> None:
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", data=after, headers=headers)
    urllib.request.urlopen(request).close()


@pytest.fixture
def acting(roles, monkeypatch):
    """The object store as a role sees it."""

    def act(role: str) -> s3fs.S3FileSystem:
        for name, value in roles[role].items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem()

    yield act
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_worker_reads_and_publishes_and_deletes_what_it_replaces_alone(acting, tmp_path):
    files = acting("worker")
    assert files.cat_file("cxr-data/nih/Data_Entry_2017.csv") == b"x"
    store = Store("s3://cxr-store/cxr", tmp_path)
    with store.write("vae", "0" * 16) as draft:
        (draft.directory / "vae.safetensors").write_bytes(b"weights")
        artifact = draft.commit({}, {})
    assert store.problems(artifact) == []
    assert (store.directory(artifact) / "vae.safetensors").read_bytes() == b"weights"
    files.pipe_file("cxr-store/cxr/_checkpoints/vae-1/step-1", b"x")
    files.rm_file("cxr-store/cxr/_checkpoints/vae-1/step-1")
    files.pipe_file("cxr-store/cxr/_scores/1/part.parquet", b"x")
    files.rm_file("cxr-store/cxr/_scores/1/part.parquet")
    page = tmp_path / "page"
    page.mkdir()
    (page / "metrics.json").write_text("{}")
    for _ in range(2):  # the second is instead of the first
        publish_folder(page, "s3://cxr-store/cxr/_evaluations/1/2", "metrics.json")
    Aliases(store.root).give("champion", "bundle/1", "1", who="", why="", instead_of=None)
    with pytest.raises(PermissionError):
        files.rm_file("cxr-store/cxr/_aliases/champion.json")
    for path in (REPORT, RECORD, "cxr-data/nih/Data_Entry_2017.csv"):
        with pytest.raises(PermissionError):
            files.rm_file(path)
    with pytest.raises(PermissionError):
        files.pipe_file("cxr-data/nih/other.csv", b"x")


def test_a_reader_reads_reports_and_neither_records_nor_data(acting):
    files = acting("reader")
    for path in (REPORT, *PAGES):
        assert files.cat_file(path) == b"x"
    for path in (RECORD, "cxr-data/nih/Data_Entry_2017.csv"):
        with pytest.raises(PermissionError):
            files.cat_file(path)
    with pytest.raises(PermissionError):
        files.pipe_file(RECORD, b"forged")


def test_a_collector_reads_records_and_aliases_and_writes_nothing(acting):
    files = acting("collector")
    assert files.cat_file(RECORD) == b"x"
    assert files.cat_file(ALIAS) == b"x"
    with pytest.raises(PermissionError):
        files.cat_file(REPORT)
    with pytest.raises(PermissionError):
        files.pipe_file(RECORD, b"forged")
    files.rm_file(REPORT)


@pytest.mark.parametrize("role", ROLES)
def test_no_policy_has_a_wildcard_for_actions_or_buckets(role):
    for statement in json.loads((POLICIES / f"{role}.json").read_text())["Statement"]:
        assert "*" not in "".join(statement["Action"])
        assert all(resource.split(":::")[1][0] != "*" for resource in statement["Resource"])
