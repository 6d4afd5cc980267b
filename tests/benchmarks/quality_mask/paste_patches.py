"""A stand-in for a restorer that invents: patches of the render itself, pasted at random other places."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

NUM_PATCHES = 6

source, target, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for view in json.loads((source / "views.json").read_text())["views"]:
    image = np.asarray(Image.open(source / view["render"]).convert("RGB"))
    height, width = image.shape[:2]
    generator = np.random.default_rng([seed, zlib.crc32(view["name"].encode())])
    repaired, side = image.copy(), min(height, width) // 6
    for _ in range(NUM_PATCHES):
        y, x = generator.integers(0, height - side), generator.integers(0, width - side)
        v, u = generator.integers(0, height - side), generator.integers(0, width - side)
        repaired[y : y + side, x : x + side] = image[v : v + side, u : u + side]
    Image.fromarray(repaired).save(target / view["file"])
