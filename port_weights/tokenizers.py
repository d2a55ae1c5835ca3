"""Released image tokenizers: which key becomes which parameter.

LlamaGen's VQ files count decoder levels from the coarsest and keep q, k, v apart; VAR's count them from the
finest and keep q, k, v together, as `dd_jax.nn.conv` does.
"""

from port_weights.rules import CONV, SAME, Rule, Table, concat


def conv(source: str, target: str) -> list[Rule]:
    """A convolution with bias."""
    return [Rule(f"{source}.weight", f"{target}/kernel", CONV), Rule(f"{source}.bias", f"{target}/bias")]


def norm(source: str, target: str) -> list[Rule]:
    """A norm with gain and bias."""
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def block(source: str, target: str) -> list[Rule]:
    """A residual block."""
    rules = [rule for k in "12" for rule in norm(f"{source}.norm{k}", f"{target}/norm{k}")]
    for name in ("conv1", "conv2", "nin_shortcut"):
        rules += conv(f"{source}.{name}", f"{target}/{name}")
    return rules


def attention(source: str, target: str, fused: bool) -> list[Rule]:
    """An attention block whose q, k, v are one convolution or three."""
    rules = norm(f"{source}.norm", f"{target}/norm") + conv(f"{source}.proj_out", f"{target}/proj_out")
    if fused:
        return rules + conv(f"{source}.qkv", f"{target}/qkv")
    for leaf, ours, how in (("weight", "kernel", CONV), ("bias", "bias", SAME)):
        keys = tuple(f"{source}.{name}.{leaf}" for name in "qkv")
        rules.append(Rule(keys, f"{target}/qkv/{ours}", concat(how, 3)))
    return rules


def ends(half: str) -> list[Rule]:
    """First and last layers of an encoder or decoder, named alike everywhere."""
    rules = norm(f"{half}.norm_out", f"{half}/norm_out")
    for name in ("conv_in", "conv_out"):
        rules += conv(f"{half}.{name}", f"{half}/{name}")
    return rules


def outside() -> list[Rule]:
    """What lies between encoder and decoder."""
    rules = conv("quant_conv", "quant_conv") + conv("post_quant_conv", "post_quant_conv")
    return [*rules, Rule("quantize.embedding.weight", "quantizer/embedding")]


def vq(levels: int) -> Table:
    """LlamaGen's VQ of so many levels (VQ-16: 5, VQ-8: 4)."""
    rules = outside()
    for half in ("encoder", "decoder"):
        rules += ends(half) + attention(f"{half}.mid.1", f"{half}/mid_attn", fused=False)
        rules += block(f"{half}.mid.0", f"{half}/mid_block1") + block(f"{half}.mid.2", f"{half}/mid_block2")
        for level in range(levels):
            theirs = level if half == "encoder" else levels - 1 - level
            source, target = f"{half}.conv_blocks.{theirs}", f"{half}/level{level}"
            rules += block(f"{source}.res.{{j}}", f"{target}_block{{j}}")
            rules += attention(f"{source}.attn.{{j}}", f"{target}_attn{{j}}", fused=False)
            way = "down" if half == "encoder" else "up"
            rules += conv(f"{source}.{way}sample.conv", f"{target}_{way}/conv")
    return Table(rules, strays=(r"quantize\.codebook_used",))


def vqvae() -> Table:
    """VAR's multi-scale VQVAE."""
    rules = outside() + conv("quantize.quant_resi.qresi_ls.{k}", "quantizer/phi{k}")
    for half, way in (("encoder", "down"), ("decoder", "up")):
        rules += ends(half) + attention(f"{half}.mid.attn_1", f"{half}/mid_attn", fused=True)
        rules += block(f"{half}.mid.block_{{k}}", f"{half}/mid_block{{k}}")
        source, target = f"{half}.{way}.{{i}}", f"{half}/level{{i}}"
        rules += block(f"{source}.block.{{j}}", f"{target}_block{{j}}")
        rules += attention(f"{source}.attn.{{j}}", f"{target}_attn{{j}}", fused=True)
        rules += conv(f"{source}.{way}sample.conv", f"{target}_{way}/conv")
    return Table(rules, strays=(r"quantize\.ema_vocab_hit_SV",))
