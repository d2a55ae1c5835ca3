"""The FID network against the reference's outputs: published keys, features under all protocols, every block."""

import functools
import hashlib
import json

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import weights
from dd_jax.errors import UserError
from dd_jax.metrics import inception, protocols, resize
from port_weights import __main__ as cli
from port_weights import rules
from port_weights.catalog import find
from scripts.fake_release import write_torch
