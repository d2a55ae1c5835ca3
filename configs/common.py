"""Settings that the demos share. Every field that exists is here or in a config of its own."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Small raster models on small data find their place and their class sooner with these (see `GPTConfig`).
CLEAR = {"positions": True, "loud_cond": True}
# A teacher's training drops conditions and words of captions, and corrupts codes before the next one: shares of them.
# It may go on `from` a folder of weights, or a run ("": it begins anew); `trunk_lr`: the share of lr that all but the
# class table then learns at, 0: none of it.
TEACHING = {"label_dropout": 0.1, "word_dropout": 0.0, "token_corruption": 0.0, "from": "", "trunk_lr": 1.0}
# It learns from the codes of so many random `views` of each picture, as config.data cuts them (LlamaGen: ten crops,
# mirrored too); 0: of its central square.
TEACHING |= {"views": 0}
# Shares that regularise it: of each target that all codes have alike; of embedded tokens and of what attention and
# feed-forward layers add (LlamaGen: 0.1); of examples that skip the last block's branches, fewer before (VAR: 0.1 for
# 24 blocks, in proportion).
TEACHING |= {"label_smoothing": 0.0, "dropout": 0.0, "drop_path": 0.0}
TEACHING |= {"grid_every": 0}  # steps between pictures that it draws while it learns; 0: none
TEACHING |= {"remat": False, "scan": False, "accumulate": 1}  # memory, and time to compile, as `distil` says
# What a tokenizer's training minimises besides the squared error of pixels (config.tokenizer.pixels) and its codes' own
# terms: VQGAN's recipe (arXiv 2012.09841) adds a perceptual distance and, late, a discriminator (see `tokenizing`).
TOKENIZING = {
    "revive_every": 30,
    "accumulate": 1,  # micro-batches a step
    "dtype": "float32",  # or bfloat16, in which encoder, decoder and discriminator compute
    "grid_every": 0,  # steps between looks at reconstructions (tokenizer/grids) and codes (curve.jsonl); 0: none
    "l1": 0.0,
    "perceptual": "none",  # classifier: the run's own; lpips: the network of config.weights.lpips
    "perceptual_weight": 1.0,
    "perceptual_every": 1,  # of how many pictures of a batch it looks at one: LPIPS costs more than a small tokenizer
    "gan_weight": 0.0,  # 0: no discriminator
    "gan_adaptive": True,  # times the ratio of both losses' gradients in the decoder's last layer; else as it is
    "gan_start": 0,
    "gan_lr": 1e-4,
    "gan_width": 64,
    "gan_layers": 3,
    "gan_r1": 0.0,  # of the gradient penalty on real pictures (arXiv 1801.04406)
    "gan_lecam": 0.0,  # of LeCam's term (arXiv 2104.03310)
}


def data(name: str, resolution: int, copies: int = 1, heldout_copies: int = 1, **warp: float) -> ConfigDict:
    """What tokenizer and teacher learn from, and how its copies are warped (see `data.bundled.augment`)."""
    fields = {
        # digits, mnist, emoji; folder:PATH with one subfolder a class; tar:PATTERN, parquet:PATTERN,
        # array_record:PATTERN, npz:FILE, tfds:NAME
        "name": name,
        "resolution": resolution,
        "channels": 0,  # 1: grey, 3: colour; 0: as the pictures are
        "classes": 0,  # 0: as many as the pictures have
        "class_names": (),  # (): those of a folder's subfolders, which a run remembers, or of a set that is known
        "background": placeholder(str),  # what transparent pictures are laid on, a colour; none: white
        # Of pictures of one's own: "centre" cuts their central square; "random" a window anew in every epoch, which
        # shows a share of the shorter side, (least, most): LlamaGen's is (0.8, 1.0), VAR's (8 / 9, 8 / 9). `flip` also
        # mirrors half of them: not for text. What is encoded or held out is always the central square.
        "crop": "centre",
        "crop_share": (0.8, 1.0),
        "flip": False,
        "strict": True,  # a picture that cannot be read is an error; otherwise others of its class stand in for it
        # Of pictures of one's own, for a model with `text`: "first" of each picture's captions, or "any", drawn anew in
        # every epoch; one without is an error if `strict`, else left out. "none": classes.
        "captions": "none",
        "cache": 1024,  # MiB of 8-bit pictures that are kept; of larger sets the rest is decoded again and again
        "readers": 0,  # threads that decode them; 0: one a core, eight at least
        "copies": copies,
        "heldout_copies": heldout_copies,
    }
    return ConfigDict(fields | dict.fromkeys(("rotate", "scale", "shear", "shift"), 0.0) | warp)


def recipe(steps: int, batch: int, lr: float, **more: Any) -> ConfigDict:
    """Optimizer and length of one training."""
    fields: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "warmup": 50,
        "final_lr": 0.1,  # share of lr left at the end of the linear decay
        "clip": 1.0,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 0.0,
        "no_decay": (),  # names of matrices without it; vectors never have any
        "muon": False,  # orthogonalised momentum for the matrices of layers; takes a larger lr, and fewer steps
        "ema": 0.99,
        "checkpoint_every": 250,
    }
    return ConfigDict(fields | more)


def tokenizing(steps: int, batch: int, lr: float, **more: Any) -> ConfigDict:
    """The tokenizer's training."""
    return recipe(steps, batch, lr, **(TOKENIZING | more))


def teaching(steps: int, batch: int, lr: float, **more: Any) -> ConfigDict:
    """The teacher's training."""
    return recipe(steps, batch, lr, **(TEACHING | more))


def distil(steps: int, batch: int, lr: float, **more: Any) -> ConfigDict:
    """The student's training: Alg. 2's own fields, and what costs or saves memory and time and changes nothing else."""
    fields = {
        "remat": False,  # compute each block again in the backward pass: a fraction of the memory, a third more time
        "scan": False,  # one compiled loop over the blocks: compiling takes the same time whatever the depth
        "accumulate": 1,  # micro-batches a step, one after another; batch: a multiple of these x len(timesteps)
        "log": (),  # where curves go besides curve.jsonl: "tensorboard", "wandb"
        "grid_every": 0,  # steps between two looks at pictures of fixed noises (student/grids, and `nll`); 0: none
        # pairs: Alg. 2. on_policy, mixed (flow head): a share `fresh` of the batch are new noises, whose codes are the
        # student's own, drawn at `tau`, and the teacher's distributions behind these codes are what it learns.
        # refined (a head with logits): a share `fresh` are new noises, their codes one sweep of the teacher over the
        # student's own. csd (velocity head): Distilled Decoding 2's scores, see `csd`.
        "objective": "pairs",
        "fresh": 0.5,
        "tau": 1.0,
        "middle": 0.0,  # weight of the same loss on what the output layer reads behind half of the blocks
        # Weights over the training, lists joined by lines: (1.0, 1.0, 0.0) falls to nothing in the second half.
        "pairs": (1.0,),
        "forward_kl": (1.0,),  # of the student from the teacher: covers all that the teacher draws
        "reverse_kl": (0.3,),  # of the teacher from the student: avoids what the teacher would not draw
    }
    found = recipe(steps, batch, lr, **(fields | more))
    # Conditional score distillation (see `method.csd`). gts: a score network regressed on the teacher's own scores over
    # the pairs, its head alone and then all, is where both networks begin. residual: the score network is the teacher's
    # score and a correction; the student begins as regressed on the pairs. Then, by turns, so many score updates and
    # one of the student, whose lr is `lr`; after step `align_at` so many score updates alone, and other turns.
    turns = {"updates": (5, 2), "align_at": 0, "align": 0, "score_lr": 2e-4, "draws": 4, "alpha": 1.0}
    found.csd = ConfigDict({"start": "gts", "start_steps": (0, 0), "start_batch": 0, "start_lr": 2e-4, **turns})
    return found


def pairs(count: int, shard: int, batch: int, labels: str) -> ConfigDict:
    """The pair set: how many, how many a file, how many at once, and their classes ("balanced" or "uniform")."""
    fields = {"count": count, "shard": shard, "batch": batch, "labels": labels}
    # Runs on several machines begin at different ids (a multiple of `shard`); scripts.merge_pairs joins their sets.
    fields["first"] = placeholder(int)
    fields["verify"] = False  # --stage=pairs then looks at the set that is there, and makes none
    return ConfigDict(fields)


def text(words: bool = False, dtype: str = "bfloat16", **sizes: Any) -> ConfigDict:
    """Captions instead of classes, and their T5 encoder; `sizes` differ from flan-t5-xl's (see `T5Config`)."""
    fields: dict[str, Any] = {
        "prompts": placeholder(str),  # a file of captions, or tfds:NAME; none: those that come with the data
        "sizes": sizes,
        "dtype": dtype,
        "words": words,  # captions are words of a vocabulary of their own
        "vocabulary": (),  # these; (): those of the pictures' captions, which a run remembers
        "batch": 64,  # captions that are encoded at a time
        "store": placeholder(str),  # a folder that keeps their features; none: made when needed
    }
    return ConfigDict(fields)


def stack(patch: int) -> ConfigDict:
    """A lean tokenizer: two convolutions each way, and codes that see little more than their own patch."""
    fields = {
        "ch": 24,
        "ch_mult": (1, 2),
        "z_channels": 16,
        "encoder_blocks": 0,
        "decoder_blocks": 0,
        "groups": 0,
        "attention": False,
        "mid": False,
        "background": -1.0,
        "reach": 1,
        "patch": patch,
    }
    return ConfigDict(fields)


def next_scale(config: ConfigDict, width: int, depth: int) -> ConfigDict:
    """The twin of a raster demo: the same pictures, drawn scale by scale by a VAR-like model.

    Wide and shallow: of two models with as many parameters the wider one spends less of its time on attention.
    """
    config.family = "var"
    vocab, stack = config.tokenizer.vocab, config.tokenizer.stack
    # Sides of the maps, (1, 2, 4); (): a ladder up to what the resolution leaves, each step twice the tokens or so.
    fields = {"sides": (), "code_dim": 4, "vocab": vocab, "moments": 1.0, "pixels": 10.0, "stack": stack}
    config.tokenizer = ConfigDict(fields)
    config.model = ConfigDict({"width": width, "depth": depth, "heads": 2, "mlp_ratio": 4.0, "gate_init": 1.0})
    config.baselines.skip = ()  # the raster model's are of its own number of steps
    return config


def demo(family: str) -> ConfigDict:
    """What the demos on handwritten digits have in common."""
    config = ConfigDict()
    config.family = family
    config.seed = 0
    # (data, model): how many devices share a batch, and how many each layer; -1: all the others; (1, 1): one device,
    # however many there are. Pairs and training.
    config.mesh = (-1, 1)
    config.published = ""  # the model's name in the paper's tables, which the report then shows beside the results
    config.smoke = False  # the whole path in minutes: random weights, one layer, a few pairs and steps
    # Folders of ported weights (python -m port_weights); none: this run trains its own, or draws them at random.
    config.weights = ConfigDict(
        {
            "tokenizer": placeholder(str),
            "teacher": placeholder(str),
            "student": placeholder(str),
            "start": placeholder(str),  # a student that training goes on from; none: from the teacher (App. C)
            "text": placeholder(str),  # the encoder of captions
            "classifier": placeholder(str),  # the feature classifier of the demos, as a run leaves it in weights/
            "lpips": placeholder(str),  # what config.train.distance = "lpips" looks through
            "random": False,
        }
    )
    config.dtype = ConfigDict({"teacher": "float32", "student": "float32"})  # or bfloat16; teacher: int8
    config.guidance = 2.0
    config.cfg_interval = -1  # tokens 0..k+1 are guided, later ones are not; -1: all are
    config.cache_chunk = placeholder(int)  # AR steps between growths of the key/value cache; none: full size
    config.filter = ConfigDict({"temperature": 1.0, "top_k": 0, "top_p": 1.0})
    config.flow = ConfigDict({"name": "adams3", "evaluations": 16, "readout": "x0"})
    # Heads (see `method.student`): both, as released: logits before AR step `split`, embedding from it on; none: logits
    # everywhere. logits, embedding: that one alone. flow: codes drawn from logits that do not see their own noise.
    config.student = ConfigDict({"head": "both", "split": placeholder(int), "same_step": False})
    # What --stage=sample draws of each plan or baseline ("onestep*", "skip-5"): `count` images of all classes, image i
    # of class i % classes ("balanced") or of any ("uniform"); with `fast`, 5,000 instead, for a quick score; of the
    # classes in `labels`, "3, 7", only a `few`. `batch` images at a time over all devices, `shard` images a file, and
    # with `npz` all in one more file.
    # `resolution`: bicubic to so many px; `rounding` to uint8: "nearest" or "floor".
    # `filter` is that of categorical draws; by_plan: {plan: {"split": ..., "top_k": ...}} where a plan differs.
    # Categorical draws may mix codes (`smooth`: prettier, not for FID). `unmasked_prefix` is for number parity with
    # the release, whose teacher reads a draft without the mask that it was trained with. Both: next-scale models only.
    config.sample = ConfigDict({"plans": ("S0",), "count": 100, "scheme": "balanced", "fast": False, "labels": ""})
    config.sample.tau = 1.0  # temperature of a flow head's draws
    config.sample.seed = placeholder(int)  # of the drawing; none: config.seed
    config.sample.update({"few": 16, "batch": 100, "shard": 1024, "npz": True})
    # Captions, where the model reads them: one, or a file of them (txt, csv, tsv, json, parquet, or tfds:NAME).
    config.sample.update({"prompt": "", "prompts": ""})
    config.sample.update({"resolution": placeholder(int), "rounding": "nearest"})
    config.sample.update({"categorical": False, "smooth": False, "unmasked_prefix": False})
    config.sample.filter = ConfigDict({"temperature": 1.0, "top_k": 0, "top_p": 1.0})
    config.sample.by_plan = ConfigDict()
    config.evaluate = ConfigDict(
        {
            "count": 2000,  # fresh noises of every row
            "reference": 3000,  # independent teacher samples for FD to the teacher
            "batch": 250,  # as large as that of the pairs: their sampler is compiled already
            "plans": (),  # rows, besides the teacher
            "beside": (),  # and S0 of other students: runs or folders of weights, whatever their heads
            "taus": (),  # and S0 at each of these temperatures, of a flow head
            "check": "S0 J*",  # lossless refinement, on `check_count` noises
            "check_count": 250,
            # Scores of what --stage=sample wrote, by the network that FID is defined by: folders and files.
            "inception": placeholder(str),  # what `python -m port_weights inception` wrote; none: no such scores
            "reference_statistics": placeholder(str),  # VIRTUAL_imagenet256_labeled.npz, statistic.pth, or one's own
            "protocol": "adm",  # or pytorch_fid, clean (see `metrics.protocols`)
            "features_batch": 64,  # images that the network looks at together, over all devices
            "products": "highest",  # precision of its products; "high", "default": faster, less exact
            "distances": "float32",  # of precision and recall; "float16" rounds as ADM's code does
            "extras": False,  # a bootstrap error, and FID-infinity
            "force": False,  # a reference of another protocol; the result says so
            "memory": False,  # score images as they are drawn, and store none
        }
    )
    config.baselines = ConfigDict({"onestep": True, "skip": (), "skip_drop": ()})
    config.speed = ConfigDict({"plans": ("S0",), "batches": (1,), "repeats": 5, "training": True})
    return config


TAUS = (0.55, 0.85, 1.0)  # besides the one that all is drawn at


def flow(config: ConfigDict, two: int) -> ConfigDict:
    """A demo behind a flow head: half of each batch pairs, half fresh noises; `two` is its second step's boundary."""
    config.student.head = "flow"
    config.train.update({"objective": "mixed", "embedding": 0.0, "distance": "none"})
    config.train.timesteps = (0, 0, 0, two)
    config.sample.tau = 0.7
    config.evaluate.taus = TAUS
    return config


def flow_at_scale(config: ConfigDict) -> ConfigDict:
    """A full-size model behind a flow head: on-policy alone, so no pairs; the teacher's pass takes LPIPS's place."""
    config.student.head, config.student.split = "flow", None
    config.train.update({"objective": "on_policy", "ce": 1.0, "embedding": 0.0, "distance": "none"})
    config.train.timesteps = (0,)
    config.dtype.student = "bfloat16"
    config.sample.tau = 0.7
    config.sample.by_plan = ConfigDict()
    config.sample.plans = ("S0",)
    config.evaluate.plans = config.speed.plans = ("S0",)
    config.published = ""
    config.ported = ConfigDict({part: name for part, name in config.ported.items() if part in ("tokenizer", "teacher")})
    return config
