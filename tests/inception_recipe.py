"""The random weights and the pictures behind tests/goldens/eval: made from names and shapes, nothing is stored."""

import functools
import importlib.util

import helpers

_SPEC = importlib.util.spec_from_file_location("eval_recipe", helpers.GOLDENS / "eval/recipe.py")
recipe = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(recipe)


@functools.cache
def state_dict():
    """The FID network's weights under the published keys."""
    keys = helpers.read_json("eval/keys_inception.json")["keys"]
    return {key: recipe.make_param("inception", key, shape) for key, shape in keys.items()}
