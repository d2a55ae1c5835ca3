"""Tables 1 to 4 of the paper (arXiv 2412.17153): class-conditional ImageNet at 256 px by ADM's protocol, and text to
image against the pictures of 5,000 LAION-COCO captions, whose protocol the paper does not give.

`model` and `plan` say which of our results a row stands beside: the paper's `pre-trained-n-m`, which counts from 1,
is `S0 Tn-1:m-1 Sm-1` here; `pre-trained-1-m` has no use for the first student step.
"""

import json
from pathlib import Path
from typing import NamedTuple

TITLES = {
    1: "Table 1: class-conditional ImageNet, 256 px",
    2: "Table 2: with the pre-trained model in between",
    3: "Table 3: text to image, 256 px",
    4: "Table 4: other model sizes",
}


class Published(NamedTuple):
    """One row; a number that the paper leaves out is None, one that it hedges a string."""

    table: int
    kind: str  # as the paper has it: GAN, Diff., Mask., AR, Baseline, Ours
    name: str
    fid: float
    inception_score: float | str | None
    precision: float | None
    recall: float | None
    parameters: str
    steps: int
    seconds: float | str | None  # an image, in the steady state, on the authors' machine
    model: str = ""
    plan: str = ""


def _rows() -> tuple[Published, ...]:
    found = json.loads((Path(__file__).parent / "published.json").read_text())
    return tuple(Published(*row) for row in found)


ROWS = _rows()
