"""Objects that are fetched through obstore beside botocore, and what is left to botocore."""

import json
import logging
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore
import pytest
from botocore.session import Session

from cxrmodel.data.files import s3
from cxrmodel.data.files.root import Root
from cxrmodel.data.files.s3_fetch import Fetcher
from cxrmodel.errors import ChecksumError, FileChangedError
from cxrmodel.patience import NUM_READS

FILMS = {f"images/{number:08d}_000.png": bytes([number]) * 20_000 for number in range(32)}
BOTOCORE, OBSTORE = "Botocore", "object_store"


class TestAddress:
    """The address and the region are those to which botocore sent its last request."""

    @pytest.fixture
    def address_of(self, monkeypatch, tmp_path):
        """Return a function from bucket and key to the address and region that are followed."""
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-such-config"))
        monkeypatch.setenv("SSL_CERT_FILE", str(Path(botocore.__file__).with_name("cacert.pem")))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

        def refuse(request, **_):
            raise ConnectionAbortedError(request.url)

        def address(bucket, key):
            session = Session()
            client = session.create_client("s3")
            fetcher = Fetcher(client, session)
            client.meta.events.register("before-send.s3.GetObject", refuse)
            with pytest.raises(ConnectionAbortedError):
                client.get_object(Bucket=bucket, Key=key)
            fetcher.follow(key)
            return fetcher._store.config["endpoint"], fetcher._store.config["region"]

        return address

    @pytest.mark.parametrize("key", ["a.png", "nih/images/a b#ü~+%20.png"])
    def test_of_amazon(self, address_of, monkeypatch, key):
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        assert address_of("films", key) == ("https://films.s3.eu-west-1.amazonaws.com", "eu-west-1")
        assert address_of("my.films", key)[0] == "https://s3.eu-west-1.amazonaws.com/my.films"

    def test_of_another_store(self, address_of, monkeypatch):
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example.org/s3")
        assert address_of("films", "a") == ("https://store.example.org/s3/films", "us-east-1")


@pytest.fixture
def root(ceph, bucket, proxy, monkeypatch):
    """Return a root of 32 objects behind the proxy, whose clients wait for 1 s at most."""
    client = ceph.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=bucket, Key=n, Body=FILMS[n]), FILMS))
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    return Root(f"s3://{bucket}")


@pytest.fixture
def files(root, proxy):
    """Return the listing, after the first object was read and before requests are counted."""
    files = root.files()
    read(root, files[0])
    proxy.reset_counts()
    return files


def read(root, file):
    return root.read(file.uri, file.bytes + 1, version=file.version)


def are_right(root, files):
    return [read(root, file) == FILMS[file.uri] for file in files] == [True] * len(files)


@pytest.mark.integration
@pytest.mark.xdist_group("ceph")
class TestFetcher:
    def test_one_request_an_object_once_botocore_has_read_one(self, root, files, proxy):
        with ThreadPoolExecutor(32) as pool:
            contents = pool.map(lambda file: read(root, file), files)
            assert list(contents) == list(FILMS.values())
        assert (dict(proxy.counts), dict(proxy.agents)) == ({"GET": 32}, {OBSTORE: 32})

    def test_parts_and_what_has_no_listed_version_are_left_to_botocore(self, root, files, proxy):
        assert root.read(files[1].uri, 3) == b"\1\1\1"
        assert root.read(files[1].uri) == FILMS[files[1].uri]
        assert dict(proxy.agents) == {BOTOCORE: 2}

    def test_the_environment_says_nothing_that_botocore_does_not_hear(
        self, root, files, proxy, monkeypatch
    ):
        monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_REGION", "mars")
        assert are_right(Root(root.root), files)
        assert dict(proxy.agents) == {BOTOCORE: 1, OBSTORE: 31}

    def test_settings_that_obstore_refuses_leave_all_to_botocore(
        self, root, files, proxy, monkeypatch, caplog
    ):
        caplog.set_level(logging.INFO, "cxrmodel")
        monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "none")
        assert are_right(Root(root.root), files)
        assert dict(proxy.agents) == {BOTOCORE: 32}
        assert "is left to botocore, as the next 4: Generic Config error" in caplog.text

    @pytest.mark.parametrize("kind", ["reply", "hang", "reset", "truncate", "stall", "corrupt"])
    def test_what_goes_wrong_once_is_read_by_botocore(self, kind, root, files, proxy):
        fault = proxy.add(kind, agent=OBSTORE, times=1)
        assert are_right(root, files[:8])
        assert fault.injected == 1
        assert dict(proxy.agents) == {BOTOCORE: 2, OBSTORE: 7}  # the first is asked of both

    def test_what_goes_wrong_always_is_asked_twice_for_ever_fewer(self, root, files, proxy, caplog):
        caplog.set_level(logging.INFO, "cxrmodel")
        fault = proxy.add("reply", agent=OBSTORE)
        assert are_right(root, files[1:])
        assert dict(proxy.agents) == {BOTOCORE: 31, OBSTORE: 5}  # objects 2, 4, 8, 16, 32
        assert "is left to botocore, as the next 32: Generic S3 error" in caplog.text
        fault.times = 0
        assert are_right(root, files[:31])
        proxy.reset_counts()
        assert are_right(root, files)
        assert dict(proxy.agents) == {OBSTORE: 32}

    def test_damage_for_good_is_told_by_botocore(self, root, files, proxy):
        proxy.add("corrupt", "GET .*00000007")
        with pytest.raises(ChecksumError, match=r"00000007_000.png came 3 times with another MD5"):
            read(root, files[7])
        assert dict(proxy.agents) == {BOTOCORE: NUM_READS, OBSTORE: 1}

    def test_a_replaced_object_is_refused(self, root, files, proxy, ceph, bucket):
        ceph.client().put_object(Bucket=bucket, Key=files[7].uri, Body=b"new")
        with pytest.raises(FileChangedError, match="was replaced after it was listed"):
            read(root, files[7])
        assert dict(proxy.agents) == {BOTOCORE: 1, OBSTORE: 1}

    def test_objects_encrypted_with_a_key_are_left_to_botocore(self, root, files, proxy):
        fault = proxy.add("encrypted", "GET")
        assert all(len(read(root, file)) == 20_000 for file in files)
        assert dict(proxy.agents) == {BOTOCORE: 32, OBSTORE: 1}
        fault.times = 0  # others may be in the same bucket
        assert are_right(root, files)
        assert dict(proxy.agents) == {BOTOCORE: 32 + 2, OBSTORE: 1 + 30}

    def test_forks_while_others_read(self, root, files, proxy):
        def child(end):
            end.send((are_right(root, files), are_right(Root(root.root), files)))

        fork = multiprocessing.get_context("fork")
        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(are_right, root, files) for _ in range(4)]
            pipes = [fork.Pipe() for _ in range(3)]
            processes = [fork.Process(target=child, args=(end,), daemon=True) for _, end in pipes]
            for process in processes:
                process.start()
            assert all(end.poll(60) and end.recv() == (True, True) for end, _ in pipes)
            assert all(each.result() for each in reads)
        for process in processes:
            process.join()
        assert dict(proxy.agents) == {BOTOCORE: 3 * 2 * 32, OBSTORE: 4 * 32}
        proxy.reset_counts()
        assert are_right(root, files)  # nor has a child closed a connection of its parent
        assert dict(proxy.agents) == {OBSTORE: 32}

    def test_credentials_that_expire_are_refreshed(self, root, proxy, ceph, tmp_path, monkeypatch):
        access_key, secret_key = ceph.credentials
        current = tmp_path / "current.json"

        def issue(secret):
            expiration = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # soon, to botocore
            issued = {"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": secret}
            current.write_text(json.dumps(issued | {"Expiration": expiration}))
            time.sleep(0.2)  # obstore asks ten times a second at most

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        config = Path(os.environ["AWS_CONFIG_FILE"])
        print_it = f"{sys.executable} -c 'print(open(\"{current}\").read())'"
        config.write_text(f"[default]\ncredential_process = {print_it}\n")
        issue(secret_key)
        root = Root(root.root)
        files = root.files()
        assert are_right(root, files[:3])
        issue("revoked")
        with pytest.raises(PermissionError, match="SignatureDoesNotMatch"):
            read(root, files[3])
        issue(secret_key)
        proxy.reset_counts()
        assert are_right(root, files[:8])
        assert dict(proxy.agents) == {BOTOCORE: 2, OBSTORE: 6}
