"""The encoder of a published T5: key by key. The decoder and its head, published in the same files, are dropped."""

from ml_collections import ConfigDict

from port_weights.rules import LINEAR, Rule, Table

INDEX = "model.safetensors.index.json"
FILES = (INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BESIDE = ("spiece.model",)  # needed with the weights, and copied beside them


def config() -> ConfigDict:
    """Sizes of flan-t5-xl."""
    from dd_jax.text.t5 import T5Config  # only here: it is slow to import

    return ConfigDict(T5Config().sizes())


def table() -> Table:
    """T5 1.1 and flan-t5 of any size."""
    source, target = "encoder.block.{i}.layer", "block_{i}"
    rules = [
        Rule("shared.weight", "shared/embedding"),
        Rule(f"{source}.0.layer_norm.weight", f"{target}/attention_norm/weight"),
        Rule(f"{source}.1.layer_norm.weight", f"{target}/ffn_norm/weight"),
        Rule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "position_bias"),
        Rule("encoder.final_layer_norm.weight", "norm/weight"),
    ]
    for name in "qkvo":
        rules.append(Rule(f"{source}.0.SelfAttention.{name}.weight", f"{target}/attention/{name}/kernel", LINEAR))
    for name in ("wi_0", "wi_1", "wo"):
        key = f"{source}.1.DenseReluDense.{name}.weight"
        rules.append(Rule(key, f"{target}/feed_forward/{name}/kernel", LINEAR))
    strays = (r"decoder\..*", r"lm_head\.weight")
    return Table(rules, strays, aliases={"encoder.embed_tokens.weight": "shared.weight"})
