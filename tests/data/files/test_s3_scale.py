"""Requests and connections that reading from S3 takes, counted before a real server."""

import io
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrmodel.config import DataConfig, ImagesConfig
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.reader import ImageReader
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source

pytestmark = pytest.mark.integration

LATENCY_S = 0.2


@pytest.fixture
def upload(ceph, bucket):
    """Return a function that stores objects below `nih/`, on several threads."""
    client = ceph.client()

    def put(objects):
        def store(name):
            client.put_object(Bucket=bucket, Key=f"nih/{name}", Body=objects[name])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(store, objects))

    return put


def image(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def names(count):
    return [f"images/{number:08d}_000.png" for number in range(count)]


def rows_of(images):
    return [(name.removeprefix("images/"), "Mass", str(row)) for row, name in enumerate(images)]


def test_an_index_takes_a_listing_of_a_thousand_keys_a_request_and_one_read(
    upload, bucket, proxy, write_csv, tmp_path
):
    rows = [
        (name.removeprefix("images/"), "Mass", str(row)) for row, name in enumerate(names(1999))
    ]
    csv = write_csv(tmp_path / "entries.csv", rows)
    upload(dict.fromkeys(names(1999), b"x") | {"Data_Entry_2017.csv": csv.read_bytes()})
    config = DataConfig(root=f"s3://{bucket}/nih")
    source = scan_source(config, tmp_path / "scratch")
    (tmp_path / "index").mkdir()
    assert build_index(config, source, tmp_path / "index")["num_images"] == 1999
    assert dict(proxy.counts) == {"LIST": 2, "GET": 1}
    upload({"images/one_more.png": b"x"})  # 2,001 objects
    proxy.reset_counts()
    assert len(Root(config.root).files()) == 2001
    assert dict(proxy.counts) == {"LIST": 3}


@pytest.fixture
def reader(upload, bucket, proxy, write_csv, index_of, tmp_path):
    """Return a reader of 64 images behind the proxy, with 16 threads."""
    images = {name: image(seed) for seed, name in enumerate(names(64))}
    csv = write_csv(tmp_path / "entries.csv", rows_of(images))
    upload(images | {"Data_Entry_2017.csv": csv.read_bytes()})
    index = index_of(f"s3://{bucket}/nih")
    return ImageReader(ImagesConfig(size=64), f"s3://{bucket}/nih", index, num_workers=16)


def test_an_image_takes_one_request_and_connections_are_bounded(reader, proxy):
    proxy.reset_counts()
    decoded = list(reader.decode_many(range(64)))
    assert [image.status for image in decoded] == ["ok"] * 64
    assert dict(proxy.counts) == {"GET": 64}
    assert proxy.peak_connections <= reader.num_workers + 1  # and that of the index


def test_many_are_read_at_once_while_each_takes_long(reader, proxy):
    proxy.add("latency", seconds=LATENCY_S)
    assert all(image.status == "ok" for image in reader.decode_many(range(64)))
    assert proxy.peak_connections >= reader.num_workers // 2 >= 4


def test_worker_processes_that_are_spawned_read_right(upload, bucket):
    upload({name: name.encode() for name in names(4)})
    root = Root(f"s3://{bucket}/nih")
    files = root.files()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        reads = [pool.submit(root.read, file.uri, version=file.version) for file in files]
        assert [read.result(timeout=60) for read in reads] == [n.encode() for n in names(4)]


def test_worker_processes_that_are_forked_share_no_connection(upload, bucket, proxy):
    upload({name: name.encode() * 5000 for name in names(24)})
    root = Root(f"s3://{bucket}/nih")
    files = root.files()  # leaves an open connection behind

    def read_all(end=None):
        contents = [root.read(file.uri, version=file.version) for file in files]
        is_right = contents == [name.encode() * 5000 for name in names(24)]
        return is_right if end is None else end.send(is_right)

    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(3)]
    children = [fork.Process(target=read_all, args=(theirs,), daemon=True) for _, theirs in pipes]
    for child in children:
        child.start()
    assert read_all()
    assert all(ours.poll(60) and ours.recv() for ours, _ in pipes)
    assert proxy.counts["GET"] == 4 * 24  # none broke and was repeated


def test_keys_are_names_whatever_they_look_like(upload, bucket):
    odd = ["/a.png", "d//b.png", "../c.png", "d/../e.png", "./f.png", "d/./g.png", "a b.png",
           "100%.png", "%41.png", "x#1?y=2.png", "a+b.png", "d/é.png", "new\nline.png",
           "quote'\".png", "K.PNG", "k.png"]  # fmt: skip
    folders = ["", "images/", "images.png/"]  # as consoles make folders
    upload({name: name.encode() for name in odd} | dict.fromkeys(folders, b""))
    root = Root(f"s3://{bucket}/nih")
    found = {file.uri: root.read(file.uri, version=file.version) for file in root.files()}
    assert found == {name: name.encode() for name in odd}


def test_credentials_and_endpoint_may_come_from_a_profile(upload, bucket, ceph, monkeypatch):
    upload({"a.png": b"x"})
    folder = Path(os.environ["AWS_CONFIG_FILE"]).parent
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    (folder / "config").write_text(f"[profile xrays]\nendpoint_url = {ceph.endpoint}\n")
    access_key, secret_key = ceph.credentials
    (folder / "credentials").write_text(
        f"[xrays]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "xrays")
    assert [file.uri for file in Root(f"s3://{bucket}/nih").files()] == ["a.png"]
