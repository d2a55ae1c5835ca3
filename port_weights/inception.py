"""The Inception-v3 of FID: which key becomes which parameter.

pytorch-fid and torch-fidelity publish the same port of the TensorFlow graph under the same keys, and our layers have
their names. Batch norms stay beside their convolutions, so that `export` gives the file back; folding them is for
`dd_jax.metrics.inception.load`.
"""

from port_weights.rules import CONV, LINEAR, Rule, Table

NORM = {"weight": "scale", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var"}


def conv(source: str, target: str) -> list[Rule]:
    """A convolution without bias, and its batch norm."""
    norm = [Rule(f"{source}.bn.{theirs}", f"{target}/{ours}") for theirs, ours in NORM.items()]
    return [Rule(f"{source}.conv.weight", f"{target}/kernel", CONV), *norm]


def inception() -> Table:
    """pt_inception-2015-12-05 and weights-inception-2015-12-05."""
    from dd_jax.metrics.inception import layers, published_shapes  # only here: it is slow to import

    rules = [Rule("fc.weight", "fc/kernel", LINEAR), Rule("fc.bias", "fc/bias")]
    for path, layer in layers(published_shapes()):
        if "running_var" in layer:
            rules += conv(".".join(path), "/".join(path))
    return Table(rules, strays=(r".*\.bn\.num_batches_tracked",))
