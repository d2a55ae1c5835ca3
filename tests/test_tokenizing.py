"""Training tokenizers: the discriminator, the weight of its loss, resuming, and what is seen on the way."""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config
from stand_in import Stand, stand

from dd_jax import factory
from dd_jax.data.batches import index_batches
from dd_jax.data.examples import Examples
from dd_jax.data.images import from_array
from dd_jax.data.pictures import Pictures
from dd_jax.data.sampleset import to_uint8
from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.families.var.tokenizer import VQVAE
from dd_jax.method import adversarial
from dd_jax.metrics import scores, ssim
from dd_jax.metrics.inception import Inception
from dd_jax.nn import codebook, discriminator
from dd_jax.nn.conv import ConvStack
from dd_jax.nn.discriminator import Discriminator, least_side
from dd_jax.report.pretrained import sections
from dd_jax.stages import checks, fid, pretrain, tokenizing
from dd_jax.stages.parts import load_params, tokenizer_trainer
from dd_jax.stages.tokenizing import Aims, Trainer
from dd_jax.system import flops, rng
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE
from dd_jax.training import reconstructions
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe, init_state, update
from dd_jax.training.reconstructions import Reconstructions, use

STACK = ConvStack(
    ch=8, ch_mult=(1, 2), z_channels=4, channels=1, encoder_blocks=0, decoder_blocks=0, groups=0,
    attention=False, mid=False,
)  # fmt: skip
VQ8, VQVAE8 = VQ(STACK, 16, 4), VQVAE(STACK, 16, 4, sides=(1, 2, 4), moments=1.0)
RECIPE = Recipe(6, 8, lr=1e-2, warmup=2, ema=0.9, checkpoint_every=3)
PLAIN = Aims(revive_every=2)
PLAYING = Aims(revive_every=2, l1=0.5, gan_weight=0.5, gan_start=2, gan_lr=1e-3, gan_width=4, gan_layers=1)
IMG = np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 1)).astype(np.float32)


def gradient_of(weight, trainer, state, img):
    """The tokenizer's, the plain way: that of all losses in one, the adversarial one's weight a number."""

    def loss(params):
        total, _, made = trainer._loss(params, img, {})
        return total + weight * adversarial.fooled(trainer._logits(state.discriminator, made))

    return jax.grad(loss)(state.params)


@pytest.fixture(scope="module")
def begun():
    """(trainer, state) that play from the first step, the discriminator's logits of some size."""
    trainer = Trainer(VQ8, RECIPE, dataclasses.replace(PLAYING, gan_start=0), 0)
    return trainer, trainer.begin(trainer.start(IMG))


def test_a_perceptual_distance_looks_at_one_picture_in_three():
    """The same terms as if the batch had these alone for it."""

    def seen(every, img):
        far = lambda frozen, a, b: jnp.mean((a - b) ** 4, (1, 2, 3))  # noqa: E731
        trainer = Trainer(VQ8, RECIPE, dataclasses.replace(PLAIN, perceptual_every=every), 0, far)
        return jax.jit(trainer._loss)(params, img, {})[1]

    params = Trainer(VQ8, RECIPE, PLAIN, 0).start(IMG)
    few, all_of_them, those = seen(3, IMG[:8]), seen(1, IMG[:8]), seen(1, IMG[0:8:3])
    assert few["perceptual"] == pytest.approx(float(those["perceptual"]), rel=1e-5)
    assert few["perceptual"] != pytest.approx(float(all_of_them["perceptual"]), rel=1e-3)
    rest = [float(x["loss"] - x["perceptual"]) for x in (few, all_of_them)]
    assert rest[0] == pytest.approx(rest[1], rel=1e-5)


@pytest.mark.parametrize(("side", "layers"), [(32, 1), (32, 2), (64, 3), (24, 3), (33, 2)])
def test_a_discriminator_s_map_and_its_least_image(side, layers):
    net = Discriminator(4, layers)
    shape = lambda side: jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, side, side, 3)))[0].shape  # noqa: E731
    assert shape(side) == (2, side // 2**layers - 2, side // 2**layers - 2)
    assert shape(least_side(layers)) == (2, 1, 1)


@pytest.mark.parametrize(("layers", "seen"), [(1, 16), (2, 34)])
def test_a_logit_sees_a_patch(layers, seen, monkeypatch):
    """By gradient, without the norms, whose statistics are the whole image's."""
    monkeypatch.setattr(discriminator, "GroupNorm", lambda *_, **__: lambda x: x)
    net, img = Discriminator(4, layers), jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 1)), jnp.float32)
    params, middle = jax.jit(net.init)(jax.random.key(0), img), (64 // 2**layers - 2) // 2
    reached = jax.jit(jax.grad(lambda img: net.apply(params, img)[0, middle, middle]))(img)[0, :, :, 0] != 0
    assert [int(jnp.any(reached, axis).sum()) for axis in (0, 1)] == [seen, seen]


def test_a_discriminator_judges_every_image_by_itself():
    net, img = Discriminator(4, 1), jnp.asarray(IMG[:4])
    params, judge = jax.jit(net.init)(jax.random.key(0), img), jax.jit(net.apply)
    each = jnp.concatenate([judge(params, img[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(judge(params, img), each, rtol=1e-5, atol=1e-6)


def test_hinge_losses():
    real, fake = jnp.asarray([2.0, 0.5, -1.0]), jnp.asarray([-3.0, 0.0, 1.0])
    np.testing.assert_allclose(adversarial.hinge(real, fake), 0.5 * ((0.5 + 2) / 3 + (1 + 2) / 3), rtol=1e-6)
    np.testing.assert_allclose(adversarial.fooled(fake), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(adversarial.balance(jnp.asarray([[3.0, 4.0]]), jnp.asarray([0.0, 2.0])), 2.5, rtol=1e-4)
    assert adversarial.balance(jnp.full(4, 0.1), jnp.zeros(3)) == pytest.approx(0.2 / 1e-4)
    assert adversarial.balance(jnp.full(4, 9.0), jnp.zeros(3)) == 1e4


def test_the_weight_is_the_ratio_of_gradients_in_the_last_layer(begun):
    trainer, state = begun
    img, kernel = jnp.asarray(IMG[:8]), state.params["decoder"]["conv_out"]["kernel"]

    def losses(kernel):
        params = {**state.params, "decoder": {**state.params["decoder"], "conv_out": {**last, "kernel": kernel}}}
        total, _, made = trainer._loss(params, img, {})
        return jnp.stack([total, adversarial.fooled(trainer._logits(state.discriminator, made))])

    last = state.params["decoder"]["conv_out"]
    both = jax.jit(jax.jacrev(losses))(kernel)
    ratio = np.linalg.norm(both[0]) / (np.linalg.norm(both[1]) + 1e-4)
    grads, _, metrics = jax.jit(trainer._play)(state, {}, img)
    np.testing.assert_allclose(metrics["gan_weight"], trainer.aims.gan_weight * ratio, rtol=1e-4)
    expected = jax.jit(lambda: gradient_of(trainer.aims.gan_weight * ratio, trainer, state, img))()
    chex.assert_trees_all_close(grads, expected, rtol=1e-3, atol=1e-6)


def test_the_weight_costs_gradients_of_one_layer():
    """What pull-backs to the last layer would go on to is dropped when compiled, and does not count."""

    def work(adaptive):
        trainer = Trainer(VQ8, RECIPE, dataclasses.replace(PLAYING, gan_adaptive=adaptive), 0)
        state = jax.eval_shape(trainer.begin, jax.eval_shape(VQ8.init, rng.key(0)))
        return flops.count(lambda state, img: trainer.step(state, {"img": img}, {}), state, IMG[:8])

    assert work(False) < work(True) < 1.1 * work(False)


def test_neither_player_s_loss_reaches_the_other(begun):
    """Each gradient is that of its own loss, the other's parameters constants, and changes as only its own does."""
    trainer, state = begun
    trainer = dataclasses.replace(trainer, aims=dataclasses.replace(trainer.aims, gan_adaptive=False))
    img = jnp.asarray(IMG[:8])

    @jax.jit
    def plain():
        made = trainer._loss(state.params, img, {})[2]
        logits = trainer._logits
        judged = jax.grad(lambda rival: adversarial.hinge(logits(rival, img), logits(rival, made)))(state.discriminator)
        return gradient_of(trainer.aims.gan_weight, trainer, state, img), judged

    grads, rival, _ = jax.jit(trainer._play)(state, {}, img)
    chex.assert_trees_all_close((grads, rival), plain(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("tokenizer", [VQ8, VQVAE8], ids=["raster", "scales"])
def test_without_an_adversary_it_is_descent_of_the_tokenizer_s_own_loss(tokenizer, tmp_path):
    """Bit by bit: the demos' figures were made so."""
    trainer = Trainer(tokenizer, RECIPE, PLAIN, 0)
    found = tokenizing.run(tmp_path, trainer, IMG, {})
    root, tx = jax.random.fold_in(rng.key(0), 1), RECIPE.optimizer()
    params = jax.jit(tokenizer.init)(rng.key(0))
    drawn = lambda params, img: tokenizer.init_codebook(params, tokenizer.vectors(params, img), root)  # noqa: E731
    state = init_state(jax.jit(drawn)(params, IMG[:16]), tx)

    @jax.jit
    def step(state, img):
        grads, metrics = jax.grad(tokenizer.loss, has_aux=True)(state.params, img)
        state, norm = update(state, grads, tx, RECIPE.ema)

        def revived(state):
            params = tokenizer.revive(state.params, img, jax.random.fold_in(root, state.step))
            ema = tokenizer.with_codebook(state.ema, tokenizer.raw_codebook(params))
            return dataclasses.replace(state, params=params, ema=ema)

        due = (state.step % 2 == 0) & (state.step < 0.7 * 6)
        return jax.lax.cond(due, revived, lambda state: state, state), {**metrics, "grad_norm": norm}

    indices = index_batches(len(IMG), 8, 0)
    for i in range(6):
        state, _ = step(state, IMG[indices(i)])
    chex.assert_trees_all_equal(found, state.ema)


def test_a_codebook_is_of_the_same_vectors_however_few_pictures_are_encoded_at_once(monkeypatch):
    trainer, asked = Trainer(VQVAE8, RECIPE, PLAIN, 0), []
    whole, vectors = trainer.start(IMG), VQVAE.vectors

    def told(self, params, img):
        asked.append(len(img))
        return vectors(self, params, img)

    monkeypatch.setattr(VQVAE, "vectors", told)
    monkeypatch.setattr(tokenizing, "at_once", lambda _: 6)
    chex.assert_trees_all_close(trainer.start(IMG), whole, atol=1e-6)
    assert asked == [6, 4]  # one compilation each, of 16 pictures


@pytest.mark.parametrize("begins", [2, 5])
def test_resumed_equals_uninterrupted(begins, tmp_path):
    """With a discriminator that began before the checkpoint, and one that begins behind it."""
    trainer = Trainer(VQ8, RECIPE, dataclasses.replace(PLAYING, gan_start=begins), 0)
    whole = tokenizing.run(tmp_path, trainer, IMG, {})
    curve = (tmp_path / "curve.jsonl").read_text()
    assert [("discriminator" in row) for row in map(json.loads, curve.splitlines())] == [i >= begins for i in range(6)]
    shutil.rmtree(tmp_path / "6")
    chex.assert_trees_all_equal(tokenizing.run(tmp_path, trainer, IMG, {}), whole)
    assert (tmp_path / "curve.jsonl").read_text() == curve


def test_micro_batches_and_rematerialisation_change_nothing(begun):
    trainer, state = begun
    stack = dataclasses.replace(STACK, encoder_blocks=1, decoder_blocks=1, groups=4)
    aims = dataclasses.replace(trainer.aims, gan_adaptive=False)  # its weight is each micro-batch's own
    trainer = dataclasses.replace(trainer, tokenizer=VQ(stack, 16, 4), aims=aims)
    state, img = trainer.begin(trainer.start(IMG)), jnp.asarray(IMG[:8])
    whole = jax.jit(trainer._play)(state, {}, img)[:2]
    again = dataclasses.replace(trainer, tokenizer=VQ(dataclasses.replace(stack, remat=True), 16, 4))
    pieces = jax.jit(lambda: tokenizing.averaged(lambda img: again._play(state, {}, img)[:2], img, 2))()
    chex.assert_trees_all_close(pieces, whole, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_the_networks_alone():
    half = Trainer.of(VQ8, {"steps": 1, "batch": 8, "lr": 0.1, "dtype": "bfloat16"}, 0)
    params = half.start(IMG)
    made = jax.jit(half.tokenizer.reconstruct)(params, IMG[:8])
    full = jax.jit(VQ8.reconstruct)(params, IMG[:8])
    assert {x.dtype for x in jax.tree.leaves(params)} == {made.img_BxRxRxc.dtype} == {jnp.dtype("float32")}
    assert 0 < float(jnp.abs(made.img_BxRxRxc - full.img_BxRxRxc).max()) < 0.1


def test_use_of_codes_by_map():
    code = np.asarray([[0, 1, 1, 2, 3], [0, 1, 1, 2, 2]])
    found = use(code, (1, 2), 8)
    assert (found["used/0"], found["used/1"]) == (1 / 8, 3 / 8)
    assert found["perplexity/0"] == 1
    p = np.asarray([4, 3, 1]) / 8
    np.testing.assert_allclose(found["perplexity/1"], np.exp(-np.sum(p * np.log(p))))


def test_entropy_is_least_where_choices_are_clear_and_codes_balanced():
    clear, balanced = 100 * jnp.eye(4), codebook.entropy(100 * jnp.eye(4))
    np.testing.assert_allclose(balanced, -np.log(4), atol=1e-3)
    assert codebook.entropy(jnp.zeros((4, 4))) == pytest.approx(0, abs=1e-3)
    assert balanced < codebook.entropy(clear[jnp.asarray([0, 0, 0, 1])]) < 0


def test_ssim_and_psnr_are_their_formulas():
    draw = np.random.default_rng(0)
    a = draw.uniform(-1, 1, (2, 13, 12, 3))
    b = np.clip(a + draw.normal(0, 0.3, a.shape), -1, 1)
    at = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight, values = np.outer(at, at)[..., None] / at.sum() ** 2, np.zeros((2, 3, 2, 3))
    for i in range(3):
        for j in range(2):
            x, y = a[:, i : i + 11, j : j + 11], b[:, i : i + 11, j : j + 11]
            mx, my = ((weight * one).sum((1, 2), keepdims=True) for one in (x, y))
            var, cov = (
                (weight * ((x - mx) ** 2 + (y - my) ** 2)).sum((1, 2)),
                (weight * (x - mx) * (y - my)).sum((1, 2)),
            )
            mx, my = mx[:, 0, 0], my[:, 0, 0]
            light = (2 * mx * my + 4e-4) / (mx**2 + my**2 + 4e-4)
            values[:, i, j] = light * (2 * cov + 36e-4) / (var + 36e-4)
    np.testing.assert_allclose(ssim.ssim(*map(jnp.float32, (a, b))), values.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(
        ssim.psnr(*map(jnp.float32, (a, b))), 10 * np.log10(4 / ((a - b) ** 2).mean((1, 2, 3))), rtol=1e-5
    )
    grey = jnp.zeros((1, 11, 11, 1))  # of constants the means alone count
    np.testing.assert_allclose(ssim.ssim(grey + 0.5, grey - 0.25), (4e-4 - 0.25) / (0.3125 + 4e-4), rtol=1e-4)
    assert ssim.ssim(grey, grey) == 1


def test_pictures_are_scored_in_pieces_by_what_they_are(tmp_path, monkeypatch):
    """And `rfid` is the distance of features of what is seen: 8 bits, three channels."""
    params, asked = Trainer(VQ8, RECIPE, PLAIN, 0).start(IMG), []

    def read(at):
        asked.append(len(at))
        return IMG[at]

    monkeypatch.setattr(reconstructions, "BATCH", 8)
    there, found = (
        Reconstructions(tmp_path, VQ8, (4,), 16, img, IMG).finish(params, None, None, stand())
        for img in (IMG, Examples(read, len(IMG), IMG.shape[1:]))
    )
    assert (found, asked) == (there, [8, 8, 8])
    seen = jax.jit(lambda img: VQ8.decode(params, VQ8.codebook(params)[VQ8.encode(params, img)]))(IMG)
    pixels = [np.repeat(to_uint8(jnp.clip(img, -1, 1)), 3, -1) for img in (seen, IMG)]
    own, other = (stand().collect(from_array(img), ("pool3",))[0]["pool3"] for img in pixels)
    assert found["rfid"] == pytest.approx(scores.frechet_features(own, other), rel=1e-3)
    assert (found["rfid_count"], found["rfid_protocol"]) == (len(IMG), "adm")
    told = {"held_out": 20, "psnr": 9, "rfid": 1.234, "rfid_count": 1000, "rfid_protocol": "adm"}
    assert "PSNR 9.00 dB, rFID 1.23 (adm, of 1,000 pictures:" in sections({}, told, [], tmp_path / "none", [])[0]


def playing(family):
    config = tiny_config(family)
    fields = {"gan_weight": 0.5, "gan_start": 6, "gan_width": 4, "gan_layers": 1, "grid_every": 6, "l1": 1.0}
    fields["perceptual"] = "classifier"
    config.pretrain.tokenizer.update(fields)
    return config


def test_a_run_looks_at_reconstructions_and_finds_its_tokenizer_again(tmp_path, monkeypatch):
    config, here = playing("var"), tmp_path / "tokenizer"
    config.evaluate.inception = "w"
    monkeypatch.setattr(fid.inception, "load", lambda folder: Inception({}, {"id": "stand"}))
    monkeypatch.setattr(fid, "Extractor", Stand)
    system, pictures = factory.build(config), Pictures(factory.settled(config).data, 0)
    frozen = {"classifier": jax.jit(system.classifier.init)(jax.random.key(0))}
    (img, _), (held, _) = pictures.training(), pictures.held_out()
    course = Course("tokenizer", here, Recipe.of(config.pretrain.tokenizer), config.seed)
    params = pretrain.train_tokenizer(system, config, course, img, held, frozen)
    assert {path.name for path in (here / "grids").iterdir()} == {
        "step-00000006.png", "step-00000012.png", "last.png",
    }  # fmt: skip
    found = json.loads((here / "scores.json").read_text())
    assert found["psnr"] > 5
    assert min(found["fd"], found["rfid"]) >= 0
    assert tuple(found["maps"]) == system.layout.maps
    assert {f"{name}/{s}" for name in ("used", "perplexity") for s in range(3)} < {*found}
    rows = [json.loads(line) for line in (here / "curve.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "used/0" in row} == {6, 12}
    assert {"l1", "perceptual", "gan", "discriminator"} < {*rows[-1]}
    chex.assert_trees_all_equal(load_params(system, config, tmp_path, ("tokenizer",))["tokenizer"], params)


def test_what_cannot_be_trained_is_said_at_once():
    config = playing("llamagen")
    config.pretrain.tokenizer.gan_layers = 3
    with pytest.raises(UserError, match=r"gan_layers=3 judges 24 px or more, and config.data.resolution=8"):
        tokenizer_trainer(factory.build(config), config)
    config = playing("llamagen")
    config.classifier, config.pretrain.tokenizer.perceptual_weight = None, 1.0
    with pytest.raises(UserError, match="perceptual=classifier: this config has no classifier; choose none"):
        tokenizer_trainer(factory.build(config), config)
    config = playing("llamagen")
    config.data.update({"name": "mnist", "resolution": 28})
    config.pretrain.tokenizer.perceptual = "lpips"
    with pytest.raises(UserError, match="perceptual=lpips looks through published weights: python -m port_weights"):
        checks.pretraining(factory.build(config), config, lambda: ALONE)
    config.data.resolution = 64
    config.pretrain.tokenizer.perceptual, config.evaluate.inception = "none", __file__
    with pytest.raises(UserError, match=r"is a file: python -m port_weights inception"):
        checks.pretraining(factory.build(config), config, lambda: ALONE)
