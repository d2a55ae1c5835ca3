"""Your own pictures, 64 px colour, next-scale order: scales 1, 2, 3, 4, 6, 8, 130 tokens in six steps.

    python -m dd_jax.main --config=configs/own_var.py --workdir=runs/own --config.data.name=folder:PICTURES

PICTURES has a subfolder a class. `:128` and `:256` after the file's name are for pictures of that many px, of which a
code is 16 px a side, and for one GPU of 80 GB (`own.py` has the sizes). With LPIPS, as published, in the classifier's
place: `python -m port_weights lpips_vgg --out weights`, then --config.pretrain.tokenizer.perceptual=lpips
--config.pretrain.tokenizer.perceptual_weight=1 --config.weights.lpips=weights/lpips_vgg (on a CPU weight .5 and
--config.pretrain.tokenizer.perceptual_every=8: docs/own_data.md)

`:d16`, `:d20`, `:d24`, `:d30` and `:d36` are the published models, whose teacher learns other classes: with
--config.weights.tokenizer=weights/var_vae --config.pretrain.teacher.from=weights/var_d16 (docs/own_data.md).

Two CPU cores with other work beside: 64 minutes for 4,495 pictures, of which the tokenizer 30 (docs/own_data.md has
the picture and the figures). One A100, by FLOPs at 40 % of its peak, not measured: 128 px 2 hours, 256 px 19 for the
tokenizer, 23 more for teacher and student.
"""

from ml_collections import ConfigDict

from dd_jax.configs import own, var

SIDES = {"64": (1, 2, 3, 4, 6, 8), "256": var.SIDES[256]}


def get_config(option: str = "64") -> ConfigDict:
    """VAR-like; `option` is the side in px, "64", "128" or "256", or a published model, "d16" to "d36"."""
    published = {f"d{depth}": depth for depth in var.DEPTHS}
    if option in published:
        return own.published(var.get(published[option]))
    config, small = own.base("var", option, published), option == "64"
    config.tokenizer.update({"sides": SIDES.get(option, ()), "code_dim": 16 if small else 32})
    config.tokenizer.update({"vocab": min(config.tokenizer.vocab, 4096), "moments": 1.0})
    config.model.gate_init = 1.0 if small else 1e-3
    config.train.timesteps = (0, 0, 3)
    config.evaluate.plans = config.sample.plans = ("S0", "S0 S3", "S0 J2")
    config.speed.plans = ("S0", "S0 S3")
    return config
