"""What a config's parts are made of: shapes of their parameters, tables of their keys, and what published files add.

Imports of the networks stand in the functions: they take seconds, and `list`, downloads and refusals need none of them.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dd_jax.system.errors import UserError
from port_weights import inception, llamagen, lpips, t5, tokenizers, var
from port_weights.rules import Array, Table, flatten

Params = Any
NEVER_TRAINED = ("uncond_embedding",)  # come with the weights, but are not counted as parameters
EYES = {"inception": inception.inception, "lpips": lpips.table}  # networks that no config describes: there is one each
CLASSES = {  # where a class-conditional model's file has a row for each class, and one for none
    "llamagen": "cls_embedding.embedding_table.weight",
    "var": "class_emb.weight",
}
_TRACED: dict[tuple[str, str], Params] = {}  # (config, part) -> shapes of its parameters
CODES_SEEN = 65536  # length of the list of recent codes that LlamaGen's tokenizers keep


def expected(config: ConfigDict, part: str) -> Params:
    """Shapes of the parameters of a config's part, or of a network that looks at images or reads captions.

    Traced once in a process: every layer takes its time.
    """
    key = (config.to_json_best_effort(sort_keys=True), part)
    if key not in _TRACED:
        _TRACED[key] = _traced(config, part)
    return _TRACED[key]


def _traced(config: ConfigDict, part: str) -> Params:
    import jax

    from dd_jax.system import rng

    if part == "inception":
        from dd_jax.metrics.inception import published_shapes

        return published_shapes()
    if part == "lpips":
        from dd_jax.metrics.lpips import LPIPS

        return jax.eval_shape(LPIPS().init, rng.key(0))
    if part == "text":
        from dd_jax.text.t5 import T5Config, init

        return jax.eval_shape(functools.partial(init, T5Config(**config)), rng.key(0))
    from dd_jax import factory

    system, key = factory.build(config), rng.key(0)
    if part == "teacher":
        return jax.eval_shape(system.teacher_init, key, jax.eval_shape(system.tokenizer.init, key))
    return jax.eval_shape(getattr(system, part).init, key)


def count(config: ConfigDict, part: str) -> int:
    """How many numbers were trained."""
    leaves = flatten(expected(config, part)).items()
    return sum(math.prod(leaf.shape) for path, leaf in leaves if path.rsplit("/", 1)[-1] not in NEVER_TRAINED)


def table(config: ConfigDict, part: str) -> Table:
    """How the published keys of a config's part, or of a network that looks at images or reads captions, map."""
    if part in EYES:
        return EYES[part]()
    if part == "text":
        return t5.table()
    levels = len(config.tokenizer.stack.ch_mult)
    tables: dict[tuple[str, str], Callable[[], Table]] = {
        ("llamagen", "tokenizer"): functools.partial(tokenizers.vq, levels),
        ("llamagen", "teacher"): llamagen.teacher,
        ("llamagen", "student"): llamagen.student,
        ("var", "tokenizer"): tokenizers.vqvae,
        ("var", "teacher"): var.teacher,
        ("var", "student"): var.student,
    }
    return tables[config.family, part]()


def with_classes(config: ConfigDict, part: str, state_dict: Mapping[str, Array], asked: int | None = None) -> list[str]:
    """Set `config.data.classes` to what the file was trained for; returns lines for a person.

    UserError for a number that the file does not have, or for a model without classes.
    """
    key = CLASSES.get(config.get("family", "")) if part in ("teacher", "student") else None
    if key is None or key not in state_dict:
        if asked is not None and (key is None or config.get("text") or "cls_embedding.uncond_embedding" in state_dict):
            raise UserError("it has no classes: leave --classes out")
        return []
    rows = state_dict[key].shape[0]
    if asked is not None and rows != asked + 1:
        dropless = ", and none for no class: guidance needs one, train with label dropout" if rows == asked else ""
        raise UserError(f"{key} has {rows} rows{dropless or f': {rows - 1} classes and one for none'}; asked: {asked}")
    if rows - 1 == config.data.classes:
        return []
    told = f"{rows - 1} classes (published: {config.data.classes}): use it with --config.data.classes={rows - 1}"
    config.data.classes, config.published = rows - 1, ""
    return [told]


def with_mask(config: ConfigDict, part: str, state_dict: Mapping[str, Array]) -> None:
    """Set what only the file knows of a next-scale student: its attention mask. UserError for another mask."""
    if config.get("family") != "var" or part == "tokenizer":
        return
    from dd_jax.method.layout import Layout

    layout = Layout.scales(config.tokenizer.sides)
    if part == "teacher":
        var.check_teacher_mask(state_dict, layout)
    elif (found := var.same_step(state_dict, layout)) is not None:
        config.student.same_step = found


def buffers(config: ConfigDict, part: str) -> dict[str, np.ndarray]:
    """What published files hold besides weights, and their strict loaders ask for: counters, steps, masks."""
    family = config.get("family")
    if part == "tokenizer" and family == "llamagen":
        return {"quantize.codebook_used": np.zeros(CODES_SEEN, np.float32)}
    if family != "var":
        return {}
    from dd_jax.method.layout import Layout

    layout, zeros = Layout.scales(config.tokenizer.sides), np.zeros(config.model.width, np.float32)
    if part == "tokenizer":
        return {"quantize.ema_vocab_hit_SV": np.zeros((layout.steps, config.tokenizer.vocab), np.float32)}
    student = part == "student"
    level = layout.step_N + 1 if student else layout.step_L
    mask = layout.student_mask(config.student.same_step) if student else layout.teacher_mask(layout.step_L)
    bias = np.where(mask, 0, -np.inf).astype(np.float32)[None, None]
    keys = {f"blocks.{i}.attn.zero_k_bias": zeros for i in range(config.model.depth)}
    return keys | {"lvl_1L": level[None].astype(np.int64), var.MASK: bias}
