"""LlamaGen text to image, XL, 775 M parameters: a caption and 256 raster steps to one.

    python -m port_weights vq16_t2i llamagen_t2i_xl_256 flan_t5_xl --out weights
    python -m dd_jax.main --config=configs/llamagen_t2i.py --workdir=runs/llamagen_t2i --config.text.prompts=FILE \\
        --config.weights.tokenizer=weights/vq16_t2i --config.weights.teacher=weights/llamagen_t2i_xl_256 \\
        --config.weights.text=weights/flan_t5_xl

FILE holds the captions that pairs are drawn for (txt, csv, tsv, json, parquet, or tfds:NAME); the paper took 3 M of
LAION-COCO. `:512` after the file's name takes stage 2, 512 px. `--config.smoke=true` tries every stage on a laptop
first. Published: teacher FID 25.70; distilled: FID 36.09 in one step, 28.95 in two.
Hardware: 8 A100-80GB or a TPU slice of like peak. Training reads 376 positions a picture against 257 of LlamaGen-L's
and has 2.2 times its parameters.
"""

from ml_collections import ConfigDict

from dd_jax.configs import llamagen


def get_config(option: str = "256") -> ConfigDict:
    """Settings as published; `option` is "256" (stage 1) or "512" (stage 2).

    No split was, so the logits head draws all codes and is all that is trained.
    """
    if option not in ("256", "512"):
        raise ValueError(f"llamagen_t2i.py:{option}: choose 256 or 512")
    return llamagen.t2i(int(option))
