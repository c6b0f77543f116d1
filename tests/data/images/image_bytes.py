"""Bytes of image files, good and bad, made by hand or by the libraries that write them."""

import io
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
ADAM7 = (*ADAM7, (0, 1, 1, 2))  # left, top, step right, step down of each pass


def noise(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def shades(height=64, width=64):
    """Return a smooth image from 0 to 1, with small steps between neighbours."""
    down, right = np.mgrid[:height, :width]
    waves = np.sin(right / 9) + np.cos(down / 7) + 0.05 * np.sin(right * down)
    return (waves - waves.min()) / (waves.max() - waves.min())


def encode(image, format="PNG", **options):
    stream = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind, content=b""):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def header(width, height, depth=8, colour=0, interlace=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks):
    return PNG_SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def chunks_of(data):
    """Return the (type, content) of each chunk of a PNG."""
    found, position = [], len(PNG_SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        found.append(
            (data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        )
        position += 12 + length
    return found


def interlaced(pixels):
    """Return a grey PNG in the seven passes of Adam7."""
    rows = [
        b"\0" + row.tobytes()
        for left, top, right, down in ADAM7
        for row in pixels[top::down, left::right]
        if row.size
    ]
    height, width = pixels.shape
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return png(header(width, height, interlace=1), data)


def dicom(pixels, *, bits=None, data=None, syntax=ExplicitVRLittleEndian, elements=(), **tags):
    """Return a DICOM file of an image, with a name and a birth date that must not be read.

    Args:
        pixels: (H, W) or (H, W, 3) integers.
        bits: BitsStored, where that is fewer than the type has.
        data: The bytes of PixelData, where they are not plainly those of the pixels.
        syntax: Of the file; of one that compresses, give data.
        elements: (tag, VR, value) of what has no keyword, or another VR than its own.
        tags: By keyword, beside or instead of those that follow from the pixels; None leaves out.
    """
    image = Dataset()
    image.PatientName, image.PatientBirthDate = "GEHEIM^Name", "19610203"
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    _describe(image, pixels, bits)
    image.add_new("PixelData", "OB", pixels.tobytes() if data is None else data)
    image["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    image["PixelData"].is_undefined_length = syntax.is_encapsulated
    for keyword, value in tags.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    for element in elements:
        image.add_new(*element)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()


def _describe(image, pixels, bits):
    image.Rows, image.Columns = pixels.shape[:2]
    image.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        image.PlanarConfiguration = 0
    image.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    image.BitsAllocated = 8 * pixels.itemsize
    image.BitsStored = bits or image.BitsAllocated
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")


def lut(first, bits, entries):
    """Return an item of a ModalityLUTSequence or VOILUTSequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", list(entries))
    return item


def decode_apart(files, directory):
    """Decode hostile files and read their headers in a process of its own, after a good image.

    Returns:
        The reason that refuses each, and by how many MiB the process has grown.
    """
    for number, data in enumerate([dicom(noise()), *files]):
        (directory / f"{number:03d}.dcm").write_bytes(data)
    script = """
        import re, sys
        from pathlib import Path
        import pandas as pd
        from cxrmodel.config import ImagesConfig
        from cxrmodel.data.datasets.dicom_tags import read_headers
        from cxrmodel.data.images.decode import decode_image
        from cxrmodel.data.files.root import Root
        from cxrmodel.errors import ImageError

        def peak_mib():
            # Not by rusage, which begins with the memory of the process that starts this one.
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024

        root = Root(sys.argv[1])
        good, *bad = sorted(Path(sys.argv[1]).iterdir())
        decode_image(good.read_bytes(), ImagesConfig())
        before = peak_mib()
        for path in bad:
            read_headers(root, pd.DataFrame({"uri": [path.name], "bytes": [path.stat().st_size]}))
            try:
                decode_image(path.read_bytes(), ImagesConfig())
            except ImageError as error:
                print(error.reason)
        print(peak_mib() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *reasons, grown_mib = done.stdout.split()
    return reasons, int(grown_mib)
