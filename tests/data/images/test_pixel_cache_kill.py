import signal
import subprocess
import sys
import textwrap

import numpy as np

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import ImageReader

CONFIG = ImagesConfig(size=64)
BUILDER = """
    import json, sys, time
    import numpy as np
    from pathlib import Path
    from cxrmodel.config import ImagesConfig
    from cxrmodel.data.images import pixel_cache
    from cxrmodel.data.images.reader import ImageReader

    class Slow(ImageReader):
        def decode(self, row):
            time.sleep(0.02)
            return super().decode(row)

    root, index, scratch = sys.argv[1:]
    pixel_cache.MIN_BLOCK_ROWS = pixel_cache.MAX_BLOCK_ROWS = 4
    config = ImagesConfig(size=64)
    cache = pixel_cache.PixelCache(config, Path(index), 40, Path(scratch))
    print("started", flush=True)
    cache.build(Slow(config, root, Path(index), 1), np.arange(40),
                report=lambda progress: print(progress.done, flush=True))
"""


def mark(cache, rows):
    """Overwrite the first pixels of rows: one that were decoded again would lose them."""
    with (cache.directory / "pixels.u8").open("r+b") as stream:
        for row in rows.tolist():
            stream.seek(row * 64 * 64)
            stream.write(b"mark")


def test_however_often_a_build_is_killed_a_finished_row_is_never_decoded_again(
    make_root, index_of, tmp_path
):
    root = make_root(40)
    index = index_of(root)
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), root, index, tmp_path / "scratch"]
    cache, finished = PixelCache(CONFIG, index, 40, tmp_path / "scratch"), np.arange(0)
    for kill_at in (4, 16, 28):
        with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as builder:
            while (line := builder.stdout.readline().strip()) in (b"started", b"") or (
                int(line) < kill_at
            ):
                assert builder.poll() is None
            builder.send_signal(signal.SIGKILL)
        before, finished = finished, np.flatnonzero(cache.statuses() == "ok")
        assert kill_at <= len(finished) < 40
        assert set(before) < set(finished)
        mark(cache, np.setdiff1d(finished, before))
    cache.build(ImageReader(CONFIG, str(root), index, 2), np.arange(40))
    marked = [row for row in range(40) if bytes(cache.pixels()[row].flat[:4]) == b"mark"]
    assert marked == finished.tolist()
    assert (cache.statuses() == "ok").all()
