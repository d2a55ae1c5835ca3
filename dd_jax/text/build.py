"""The text side of a config: which captions there are, and who reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.data import emoji, pictures
from dd_jax.system.errors import UserError
from dd_jax.text.captions import EXAMPLES, Text
from dd_jax.text.t5 import T5Config
from dd_jax.text.tokens import Words


def build(config: ConfigDict, noted: Path | None = None) -> Text | None:
    """Without parameters; none for a model of classes. `noted`: where a run notes its pictures' captions.

    UserError for settings that contradict each other.
    """
    if "text" not in config:
        return None
    fields, data = config.text, config.data
    bundled = data.name == "emoji"
    own = pictures.captioned(data) and not bundled
    if own and fields.prompts:
        raise UserError(
            f"config.text.prompts={fields.prompts} and config.data.captions={data.captions}: pairs are drawn of the "
            "pictures' captions; leave one of them out"
        )
    return Text(
        sizes=_sizes(config),
        source=fields.prompts or (emoji.captions() if bundled else EXAMPLES),
        folder=config.weights.text or "",
        unseen=tuple(emoji.held_out().tolist()) if bundled and not fields.prompts else (),
        batch=fields.batch,
        store=fields.store or "",
        words=fields.words,
        vocabulary=tuple(fields.get("vocabulary") or ()),
        noted=noted if own else None,
    )


def _sizes(config: ConfigDict) -> T5Config:
    """UserError where the model takes other features than the encoder makes."""
    sizes = T5Config(**config.text.sizes, dtype=jnp.dtype(config.text.dtype))
    cond, caption_dim = config.model.get("cond", 1), config.model.get("caption_dim", 0)
    if (cond, caption_dim) != (sizes.tokens, sizes.width):
        raise UserError(
            f"config.model.cond={cond} and .caption_dim={caption_dim}, but the encoder of captions (config.text.sizes) "
            f"makes {sizes.tokens} tokens of {sizes.width}: set them to that"
        )
    return sizes


def vocabulary(config: ConfigDict, earlier: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of the pictures' captions, or those that a run noted; none where there are no such captions."""
    if earlier.get("text.vocabulary") and earlier.get("data.name") == config.data.name:
        return tuple(earlier["text.vocabulary"])
    return Words.of(pictures.captions(config.data), 1).words if pictures.captioned(config.data) else ()
