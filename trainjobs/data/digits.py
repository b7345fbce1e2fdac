"""builtin:digits: 1797 handwritten digits of 8 x 8 pixels, which come with scikit-learn (UCI, Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from trainjobs.api.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

COUNT = 1797


def path() -> Path:
    """The file inside the installed package. Found without importing scikit-learn, which takes a second; JobError GTJ0113."""
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            return file
    raise JobError("GTJ0113", "builtin:digits comes with scikit-learn, which is not installed", how="pip install scikit-learn")


def labels() -> npt.NDArray[np.int64]:
    """int64 [1797]: which digit each is."""
    import numpy as np

    return np.loadtxt(path(), delimiter=",", usecols=64, dtype=np.float32).astype(np.int64)


def load(size: int) -> npt.NDArray[np.float32]:
    """float32 [1797, 1, size, size] in [-1, 1]: 0 is -1, 16 is 1; sizes above 8 are interpolated linearly."""
    import numpy as np

    table = np.loadtxt(path(), delimiter=",", dtype=np.float32)  # 64 pixels and the label
    digits = table[:, :64].reshape(-1, 8, 8)
    if size != 8:
        digits = np.stack([np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BILINEAR)) for digit in digits])
    return digits[:, None] / np.float32(8) - np.float32(1)
