"""LlamaGen-L, ImageNet 256 px, to one step by conditional score distillation (Distilled Decoding 2, arXiv 2510.21003).

    python -m port_weights vq16 llamagen_l --out weights
    python -m dd_jax.main --config=configs/llamagen_l_csd.py --workdir=runs/llamagen_l_csd \\
        --config.weights.tokenizer=weights/vq16 --config.weights.teacher=weights/llamagen_l \\
        --config.train.remat=true --config.train.accumulate=4 --config.dtype.student=bfloat16

Hardware: 8 A100-80GB; its authors report 52.6 h on 8 A800, without the 200,000 steps in which they teach the teacher to
read vectors, which are not needed here: the score network reads codes. `--config.smoke=true` tries every stage on a
laptop first. Not trained here: the method, its identities and its programs are tested.
Published: teacher FID 4.11; one step 8.59. docs/csd.md has the equations and what was chosen.
"""

from ml_collections import ConfigDict

from dd_jax.configs import imagenet, llamagen

SCORES, START = 60_000, 100_000  # score updates, five of each six steps; all of the start trains the whole network


def get_config() -> ConfigDict:
    """The recipe of Tables 8, 10 and 11; of the two values of top-k in print, the appendix' on settings."""
    start = {"start_steps": (0, START), "start_batch": 512, "start_lr": 1e-4}
    config = imagenet.by_scores(llamagen.get("l"), 1024, 1e-4, 2e-4, 40_000, updates=(5, 5), **start)
    config.filter.top_k = 8000
    config.train.steps = START + SCORES * 6 // 5
    return config
