"""Draw a folder of colour pictures of different sizes, one directory for each class.

python examples/pictures.py DIR [NUMBER]    NUMBER of each class, default 80

The same call draws the same pictures. DIR/SHAPE/NNN.png has a disc, a ring, a square or
a cross of any colour at any place. So a network must look at the shape.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = (40, 96)  # pixels of a side, from and to
SHAPES = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "cross": lambda x, y: (
        (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1)
    ),
}


def picture(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Return one picture, (height, width, 3), uint8."""
    height, width = rng.integers(*SIZES, 2)
    radius = rng.uniform(0.25, 0.45) * min(height, width)
    row = rng.uniform(radius, height - radius)
    column = rng.uniform(radius, width - radius)
    y, x = np.mgrid[:height, :width]
    inside = SHAPES[shape]((x - column) / radius, (y - row) / radius)
    ground, colour = rng.uniform(0, 255, (2, 3))
    while abs(ground - colour).max() < 100:  # or nobody could see it
        colour = rng.uniform(0, 255, 3)
    pixels = np.where(inside[..., None], colour, ground) + rng.normal(
        0, 12, (height, width, 3)
    )
    return pixels.clip(0, 255).astype(np.uint8)


root = Path(sys.argv[1])
number = int(sys.argv[2]) if len(sys.argv) > 2 else 80
rng = np.random.default_rng(0)
for shape in SHAPES:
    (root / shape).mkdir(parents=True, exist_ok=True)
    for index in range(number):
        Image.fromarray(picture(shape, rng)).save(root / shape / f"{index:03}.png")
print(f"{len(SHAPES) * number} pictures of {', '.join(SHAPES)} are in {root}.")
