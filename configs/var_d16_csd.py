"""VAR-d16, ImageNet 256 px, to one step by conditional score distillation (Distilled Decoding 2, arXiv 2510.21003).

    python -m port_weights var_vae var_d16 --out weights
    python -m dd_jax.main --config=configs/var_d16_csd.py --workdir=runs/var_d16_csd \\
        --config.weights.tokenizer=weights/var_vae --config.weights.teacher=weights/var_d16 \\
        --config.train.remat=true --config.dtype.student=bfloat16

Hardware: 8 A100-80GB; its authors report 115.5 h on 8 A800, most of them for the head's own regression.
`--config.smoke=true` tries every stage on a laptop first. Not trained here: the method, its identities and its programs
are tested.
Published: teacher FID 4.19; one step 6.21, before alignment 8.35. docs/csd.md has the equations and what was chosen.
"""

from ml_collections import ConfigDict

from dd_jax.configs import imagenet, var

SCORES, ALIGN, AGAIN = 40_000, 8_000, 15_000  # score updates: five of each six steps, all, two of each three
START = (300_000, 30_000)


def get_config() -> ConfigDict:
    """The recipe of Tables 8, 10 and 11."""
    before = SCORES * 6 // 5
    turns = {"updates": (5, 2), "align_at": before, "align": ALIGN}
    config = imagenet.by_scores(var.get(16), 512, 2e-4, 2e-4, SCORES, start_steps=START, start_lr=2e-4, **turns)
    config.train.steps = sum(START) + before + ALIGN + AGAIN * 3 // 2
    return config
