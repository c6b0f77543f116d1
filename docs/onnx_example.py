"""Scores of images by an exported network, with NumPy, Pillow and onnxruntime alone.

python onnx_example.py model.onnx a.png b.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
labels, size = json.loads(about["labels"]), json.loads(about["images"])["size"]

for path in sys.argv[2:]:
    image = Image.open(path).convert("L")
    side = min(image.size)  # fit `crop`: the centre square
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.BILINEAR
    )
    probabilities, mu, logvar = session.run(None, {"images": np.asarray(square)[None]})[:3]
    best = np.argsort(-probabilities[0])[:3]
    print(path, ", ".join(f"{labels[k]} {probabilities[0, k]:.3f}" for k in best))
