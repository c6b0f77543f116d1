import signal
import subprocess
import sys
import textwrap

import numpy as np

from cxrmodel.config import ImagesConfig
from cxrmodel.data.image_cache import ImageCache
from cxrmodel.data.reader import ImageReader

CONFIG = ImagesConfig(size=64)
BUILDER = """
    import json, sys, time
    import numpy as np
    from pathlib import Path
    from cxrmodel.config import ImagesConfig
    from cxrmodel.data import image_cache
    from cxrmodel.data.reader import ImageReader

    class Slow(ImageReader):
        def decode(self, row):
            time.sleep(0.02)
            return super().decode(row)

    root, index, scratch = sys.argv[1:]
    image_cache.MIN_BLOCK_ROWS = image_cache.MAX_BLOCK_ROWS = 4
    config = ImagesConfig(size=64)
    cache = image_cache.ImageCache(config, Path(index), 40, Path(scratch))
    print("started", flush=True)
    cache.build(Slow(config, root, Path(index), 1), np.arange(40),
                report=lambda progress: print(progress.done, flush=True))
"""


def test_a_killed_build_goes_on_where_it_stopped(make_root, index_of, tmp_path):
    root = make_root(40)
    index = index_of(root)
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), root, index, tmp_path / "scratch"]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as builder:
        while builder.stdout.readline().strip() != b"12":
            assert builder.poll() is None
        builder.send_signal(signal.SIGKILL)
    cache = ImageCache(CONFIG, index, 40, tmp_path / "scratch")
    finished = np.flatnonzero(cache.statuses() == "ok")
    assert 12 <= len(finished) < 40
    # A finished row that were decoded again would lose this mark.
    with (cache.directory / "pixels.u8").open("r+b") as stream:
        for row in finished.tolist():
            stream.seek(row * 64 * 64)
            stream.write(b"mark")
    cache.build(ImageReader(CONFIG, str(root), index, 2), np.arange(40))
    marked = [row for row in range(40) if bytes(cache.pixels()[row].flat[:4]) == b"mark"]
    assert marked == finished.tolist()
    assert (cache.statuses() == "ok").all()
