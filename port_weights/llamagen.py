"""Released LlamaGen transformers, class- or text-conditional, and LlamaGen-DD students: key by key.

Which file is published where: `catalog.py`.
"""

from port_weights.rules import LINEAR, Rule, Table

STRAYS = (r"freqs_cis",)  # rotary tables, made from the sizes


def trunk(prefix: str = "") -> list[Rule]:
    """What teacher and student share. The rows of wqkv are q | k | v, head by head, as our columns are."""
    source, target = "layers.{i}", f"{prefix}layers_{{i}}"
    rules = [
        Rule("cls_embedding.embedding_table.weight", f"{prefix}cls_embedding/embedding"),
        Rule("cls_embedding.uncond_embedding", f"{prefix}cls_embedding/uncond_embedding"),
        Rule("cls_embedding.cap_proj.fc{k}.weight", f"{prefix}cls_embedding/fc{{k}}/kernel", LINEAR),
        Rule("norm.weight", f"{prefix}norm/weight"),
        Rule("output.weight", f"{prefix}output/kernel", LINEAR),
    ]
    for name in ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"):
        rules.append(Rule(f"{source}.{name}.weight", f"{target}/{name.replace('.', '/')}/kernel", LINEAR))
    for name in ("attention_norm", "ffn_norm"):
        rules.append(Rule(f"{source}.{name}.weight", f"{target}/{name}/weight"))
    return rules


def teacher() -> Table:
    """The GPT, into the trunk's parameters."""
    return Table([*trunk(), Rule("tok_embeddings.weight", "tok_embeddings/embedding")], STRAYS)


def student() -> Table:
    """The distilled GPT, into a `StudentNet`'s parameters."""
    rules = [
        Rule("tok_embeddings.weight", "trunk/tok_embeddings/kernel", LINEAR),
        Rule("tok_embeddings.bias", "trunk/tok_embeddings/bias"),
        Rule("n_d_embed.weight", "n_d_embed/embedding"),
        Rule("final_layer_conti.scale_shift_table", "embedding_head/scale_shift_table"),
        Rule("final_layer_conti.linear.weight", "embedding_head/linear/kernel", LINEAR),
        Rule("final_layer_conti.linear.bias", "embedding_head/linear/bias"),
    ]
    return Table([*trunk("trunk/"), *rules], STRAYS)
