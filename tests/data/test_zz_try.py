import boto3, pytest
from s3fs import S3FileSystem
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ceph")]
def test_a(ceph, bucket, proxy):
    ceph.client().put_object(Bucket=bucket, Key="x/y.png", Body=b"hello"*1000)
    fs = S3FileSystem()
    print(fs.find(bucket, detail=True), proxy.counts)
    print(len(fs.cat_file(f"{bucket}/x/y.png")), proxy.requests, proxy.peak_connections)
    for kind in ("reply","latency","reset","corrupt","truncate"):
        f = proxy.add(kind, "GET .*y.png", times=1)
        proxy.reset_counts()
        try: print(kind, fs.cat_file(f"{bucket}/x/y.png",start=0,end=5001)==b"hello"*1000, f.injected, proxy.requests)
        except Exception as e: print(kind, repr(e))
    fs.pipe_file(f"{bucket}/big", b"z"*20_000_000)
    print(proxy.counts, len(fs.cat_file(f"{bucket}/big",start=0,end=20000001)))
