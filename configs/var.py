"""VAR's released sizes (arXiv 2404.02905), distilled as published; `var_d16.py` and its like pick one."""

from ml_collections import ConfigDict

from dd_jax.configs import imagenet

# depth: px, step of the second boundary, initial size of the residual gates, share of lr left at the end
DEPTHS = {
    16: (256, 5, 1e-3, 0.1),
    20: (256, 4, 1e-3, 0.1),
    24: (256, 4, 1e-4, 0.01),
    30: (256, 5, 1e-5, 0.01),
    36: (512, 5, 1e-5, 0.01),
}
SIDES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
EPOCHS = 120


def get(depth: int) -> ConfigDict:
    """`depth` sets everything: width is 64 depth, with depth heads. 512 px models share their modulation layer."""
    resolution, second, gate_init, final_lr = DEPTHS[depth]
    config = imagenet.base("var", resolution)
    config.ported.update({"tokenizer": "var_vae", "teacher": f"var_d{depth}"})
    if depth <= 24:
        config.ported.student = f"var_d{depth}_dd"
    config.published = f"VAR-d{depth}"
    config.guidance = 2.0
    config.filter.update({"top_k": 900, "top_p": 0.95})
    stack = ConfigDict({"ch": 160, "ch_mult": (1, 1, 2, 2, 4), "z_channels": 32})
    config.tokenizer = ConfigDict({"sides": SIDES[resolution], "code_dim": 32, "vocab": 4096, "stack": stack})
    config.model = ConfigDict({"width": 64 * depth, "depth": depth, "heads": depth, "gate_init": gate_init})
    config.model.shared_aln = resolution == 512
    config.student.split = second
    recipe = {"timesteps": (0, second), "lr": 2e-4, "final_lr": final_lr, "clip": 2.0}  # lr: 1e-4 per 256 of the batch
    config.train.update(recipe | {"no_decay": undecayed(config.model)})
    config.train.steps = config.pairs.count * EPOCHS // config.train.batch
    config.train.warmup = config.train.steps // 50
    config.sample.filter.update(config.filter)
    config.sample.plans = ("S0", f"S0 S{second}")
    config.sample.by_plan = {"S0 T3:5 S5": {"split": 8}, "T0:5 S5": {"split": 9}} if depth == 16 else {}
    with_teacher = [f"S0 T{first}:{second} S{second}" for first in (second - 1, second - 2)]
    config.evaluate.plans = (*config.sample.plans, *with_teacher, f"T0:{second} S{second}")
    config.speed.plans = ("decode", *config.evaluate.plans)
    return config


def undecayed(model: ConfigDict) -> tuple[str, ...]:
    """Matrices without weight decay, as released: embeddings of positions and levels, each block's own modulation."""
    return ("pos_1LC", "lvl_embed", *(("ada_gss",) if model.get("shared_aln") else ()))
