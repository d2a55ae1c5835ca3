"""Tables 1, 2 and 4 of the paper (arXiv 2412.17153): class-conditional ImageNet at 256 px, ADM's protocol.

`model` and `plan` say which of our results a row stands beside: the paper's `pre-trained-n-m`, which counts from 1,
is `S0 Tn-1:m-1 Sm-1` here; `pre-trained-1-m` has no use for the first student step.
"""

from typing import NamedTuple

TITLES = {
    1: "Table 1: class-conditional ImageNet, 256 px",
    2: "Table 2: with the pre-trained model in between",
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


D16, D20, D24 = "VAR-d16", "VAR-d20", "VAR-d24"
L, B = "LlamaGen-L", "LlamaGen-B"

ROWS = (
    Published(1, "GAN", "StyleGan-XL", 2.30, 265.1, 0.78, 0.53, "166M", 1, 0.3),
    Published(1, "Diff.", "ADM", 10.94, 101.0, 0.69, 0.63, "554M", 250, 168),
    Published(1, "Diff.", "LDM-4-G", 3.60, 247.7, None, None, "400M", 250, None),
    Published(1, "Diff.", "DiT-L/2", 5.02, 167.2, 0.75, 0.57, "458M", 250, 31),
    Published(1, "Diff.", "L-DiT-7B", 2.28, 316.2, 0.83, 0.58, "7.0B", 250, ">45"),
    Published(1, "Mask.", "MaskGIT", 6.18, 182.1, 0.80, 0.51, "227M", 8, 0.5),
    Published(1, "AR", "VQVAE-2", 31.11, "~45", 0.36, 0.57, "13.5B", 5120, None),
    Published(1, "AR", "VQGAN", 15.78, 74.3, None, None, "1.4B", 256, 24),
    Published(1, "AR", "ViTVQ", 4.17, 175.1, None, None, "1.7B", 1024, ">24"),
    Published(1, "AR", "RQTran.", 7.55, 134.0, None, None, "3.8B", 68, 21),
    Published(1, "AR", D16, 4.19, 230.2, 0.84, 0.48, "310M", 10, 0.133, D16, "T0:10"),
    Published(1, "AR", L, 4.11, 283.5, 0.85, 0.48, "343M", 256, 5.01, L, "T0:256"),
    Published(1, "Baseline", "VAR-skip-1", 9.52, 178.9, 0.68, 0.54, "310M", 9, 0.113, D16, "skip-1"),
    Published(1, "Baseline", "VAR-skip-2", 40.09, 56.8, 0.46, 0.50, "310M", 8, 0.098, D16, "skip-2"),
    Published(1, "Baseline", "VAR-onestep*", 157.5, None, None, None, "", 1, None, D16, "onestep*"),
    Published(1, "Baseline", "LlamaGen-skip-106", 19.14, 80.39, 0.42, 0.43, "343M", 150, 2.94, L, "skip-106"),
    Published(1, "Baseline", "LlamaGen-skip-156", 80.72, 12.13, 0.17, 0.20, "343M", 100, 1.95, L, "skip-156"),
    Published(1, "Baseline", "LlamaGen-onestep*", 220.2, None, None, None, "", 1, None, L, "onestep*"),
    Published(1, "Ours", "VAR-d16-DD", 9.94, 193.6, 0.80, 0.37, "327M", 1, 0.021, D16, "S0"),
    Published(1, "Ours", "VAR-d16-DD", 7.82, 197.0, 0.80, 0.41, "327M", 2, 0.036, D16, "S0 S5"),
    Published(1, "Ours", "LlamaGen-L-DD", 11.35, 193.6, 0.81, 0.30, "326M", 1, 0.023, L, "S0"),
    Published(1, "Ours", "LlamaGen-L-DD", 7.58, 237.5, 0.84, 0.37, "326M", 2, 0.043, L, "S0 S80"),
    Published(2, "AR", "VAR", 4.19, 230.2, 0.84, 0.48, "310M", 10, 0.133, D16, "T0:10"),
    Published(2, "AR", "LlamaGen", 4.11, 283.5, 0.865, 0.48, "343M", 256, 5.01, L, "T0:256"),
    Published(2, "Ours", "VAR-pre-trained-1-6", 5.03, 242.8, 0.84, 0.45, "327M", 6, 0.090, D16, "T0:5 S5"),
    Published(2, "Ours", "VAR-pre-trained-4-6", 5.47, 230.5, 0.84, 0.43, "327M", 4, 0.062, D16, "S0 T3:5 S5"),
    Published(2, "Ours", "VAR-pre-trained-5-6", 6.54, 210.8, 0.83, 0.42, "327M", 3, 0.045, D16, "S0 T4:5 S5"),
    Published(2, "Ours", "LlamaGen-pre-trained-1-81", 5.71, 238.6, 0.83, 0.43, "326M", 81, 1.725, L, "T0:80 S80"),
    Published(2, "Ours", "LlamaGen-pre-trained-41-81", 6.20, 233.8, 0.83, 0.41, "326M", 42, 0.880, L, "S0 T40:80 S80"),
    Published(2, "Ours", "LlamaGen-pre-trained-61-81", 6.76, 231.4, 0.83, 0.40, "326M", 22, 0.447, L, "S0 T60:80 S80"),
    Published(4, "AR", D20, 3.35, 301.4, 0.84, 0.51, "600M", 10, 0.184, D20, "T0:10"),
    Published(4, "AR", D24, 2.51, 312.2, 0.82, 0.53, "1.03B", 10, 0.251, D24, "T0:10"),
    Published(4, "AR", B, 5.42, 193.5, 0.83, 0.44, "111M", 256, 2.93, B, "T0:256"),
    Published(4, "Ours", "VAR-d20-DD", 9.55, 197.2, 0.78, 0.38, "635M", 1, 0.027, D20, "S0"),
    Published(4, "Ours", "VAR-d20-DD", 7.33, 204.5, 0.82, 0.40, "635M", 2, 0.047, D20, "S0 S4"),
    Published(4, "Ours", "VAR-d24-DD", 8.92, 202.8, 0.78, 0.39, "1.09B", 1, 0.034, D24, "S0"),
    Published(4, "Ours", "VAR-d24-DD", 6.95, 222.5, 0.83, 0.43, "1.09B", 2, 0.059, D24, "S0 S4"),
    Published(4, "Ours", "LlamaGen-B-DD", 15.50, 135.4, 0.76, 0.26, "98.3M", 1, 0.018, B, "S0"),
    Published(4, "Ours", "LlamaGen-B-DD", 11.17, 154.8, 0.80, 0.31, "98.3M", 2, 0.029, B, "S0 S80"),
)
