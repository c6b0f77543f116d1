"""The reference by which stages that need pixels find them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cxrmodel.config import ImagesConfig, RuntimeConfig
from cxrmodel.data.images.pixels import Pixels, open_pixels
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.layout import IMAGES_FILE, LISTING_FILE
from cxrmodel.storage.store import Artifact, Store


@dataclass(frozen=True)
class PixelSource:
    """Where pixels come from, and the checksums that say what they are.

    Attributes:
        root: Folder or URL of the data set.
        config: How files become pixels.
        index: Artifact of the index stage; its listing names the files.
        images: Artifact of the images stage; holds a checksum per image.
    """

    root: str
    config: ImagesConfig
    index: Artifact
    images: Artifact

    @property
    def fingerprint(self) -> str:
        """Digest of the name, status and checksum of every image."""
        return self.images.only(IMAGES_FILE).fingerprint

    def open(self, store: Store, runtime: RuntimeConfig, report: ReportProgress) -> Pixels:
        """Open the decoded pixels, decoding them again where scratch has lost them."""
        return open_pixels(
            self.config,
            self.root,
            store.directory(self.index.only(LISTING_FILE)),
            store.directory(self.images),
            scratch=store.scratch,
            num_workers=runtime.num_workers,
            report=report,
        )

    def open_undecoded(self, store: Store, runtime: RuntimeConfig) -> Pixels:
        """Open the pixels without decoding any: an image is decoded when it is read."""
        source = replace(self, config=self.config.model_copy(update={"cache": False}))
        return source.open(store, runtime, silent)
