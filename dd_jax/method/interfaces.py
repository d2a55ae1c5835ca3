"""What the algorithms need of a model. Parameters are always explicit; states are pytrees."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.layout import Layout
from dd_jax.nn.dropping import Chance
from dd_jax.system.sharding import Rules
from dd_jax.system.weights import Params

State = Any  # whatever pytree a teacher keeps between steps


@flax.struct.dataclass
class Cond:
    """What to draw: class labels, or captions. Only a family's backbone opens it."""

    label_B: jax.Array | None = None
    caption_BxPxF: jax.Array | None = None  # features of the caption's tokens, padding in front
    valid_BxP: jax.Array | None = None  # which of them are no padding
    drop_B: jax.Array | None = None  # True: the null condition instead; None: nowhere
    guidance_B: jax.Array | None = None  # the teacher's guidance, an image's own; None: the model's, everywhere

    def dropped(self, everywhere: bool = True) -> "Cond":
        """The null condition of the same batch; `everywhere=False`: this one, in the same structure."""
        batch = len(jax.tree.leaves(self)[0])
        return dataclasses.replace(self, drop_B=jnp.full(batch, everywhere))

    def alike(self) -> jax.Array:
        """(B, B): which examples have the same class. Captions have none."""
        assert self.label_B is not None
        return self.label_B[:, None] == self.label_B


class Teacher(Protocol):
    """A pre-trained AR model. Guidance, KV cache and running feature maps stay inside; filtering outside."""

    @property
    def layout(self) -> Layout: ...

    @property
    def chunk(self) -> int | None:
        """Steps between two growths of the cache; None: it has its full size from the start."""
        ...

    def blank(self, batch: int) -> Cond:
        """A condition of the right structure."""
        ...

    def start(self, params: Params, cond: Cond, code_BxL: jax.Array, s0: int) -> State:
        """Prefill the steps < s0 of `code_BxL` (s0 = 0: the condition alone)."""
        ...

    def reserve(self, state: State, steps: int) -> State:
        """Make room for the steps < `steps`."""
        ...

    def logits(self, params: Params, state: State, s: jax.Array | int) -> tuple[jax.Array, State]:
        """Guided logits (B, G, V) of step s; s may be traced where all steps have one size."""
        ...

    def append(self, params: Params, state: State, s: jax.Array | int, choice: Any) -> State:
        """Make what step s chose, code_BxG (or an `ar.Choice`), visible to step s + 1."""
        ...

    def forward(self, params: Params, cond: Cond, code_BxL: jax.Array, chance: Chance | None = None) -> jax.Array:
        """Plain logits (B, L, V), teacher-forced and without guidance: what the teacher is trained with.

        `chance`: what is left out of that pass; given where the config says so.
        """
        ...

    def parallel(self, params: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
        """Guided logits (B, L, V) of every step given the codes of all earlier steps: one pass."""
        ...


class ReadingTeacher(Teacher, Protocol):
    """A teacher whose stream can be read before its output layer: conditional score distillation needs it."""

    def features(self, params: Params, cond: Cond, code_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What it knows of every token given the codes of earlier steps (B, L, D), and of the condition (B, D)."""
        ...


class WindowTeacher(Teacher, Protocol):
    """A teacher of one-token steps that can also score a window behind an exact prefix (`refine.refine`)."""

    def window(
        self, params: Params, state: State, cond: Cond, code_BxL: jax.Array, first_B: jax.Array, width: int
    ) -> tuple[jax.Array, State]:
        """Guided logits (B, width, V) of steps first..first+width-1, given a cache exact before `first`."""
        ...


class Student(Protocol):
    """The few-step model: Eq. 6 before the known tokens are put back."""

    @property
    def head(self) -> str:
        """What reads its stream: one of `student.HEADS`."""
        ...

    def __call__(
        self, params: Params, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        """X_t and t -> (logits_BxLxV, token_BxLxC) of every token; no vectors where no head regresses them.

        The velocity head has no logits (V = 0), and vectors in the codebook's frame.
        """
        ...

    def deeply(
        self, params: Params, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array
    ) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """The same, and the logits that the output layer reads at mid-depth; only training with them calls it."""
        ...


class ScoredStudent(Student, Protocol):
    """A student of continuous tokens, as conditional score distillation trains it."""

    def backbone(self, teacher: Any) -> ReadingTeacher:
        """The teacher's network, computing as this student does: what the score network is made of."""
        ...

    def init_from_score(self, params: Params, score: Params) -> Params:
        """`params` begun again as a score network that was regressed on the teacher's scores."""
        ...


@runtime_checkable
class Trunk(Protocol):
    """A family's transformer, a Linen module, as `student.StudentNet` and the family's own teacher call it.

    One class twice: the teacher's reads codes, the student's code vectors. D is its width, P its condition tokens.
    """

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Linen's own; so is `init`."""
        ...

    def blank(self, batch: int) -> Cond:
        """A condition of the right structure, to draw parameters with."""
        ...

    def embed_cond(self, cond: Cond) -> jax.Array:
        """The condition as the family's blocks take it: tokens (B, P, D), or a vector (B, D). Heeds `cond.drop_B`."""
        ...

    def logits(self, h: jax.Array, cond_BxD: jax.Array) -> jax.Array:
        """Residual stream (B, M, D) behind the blocks, and the condition vector -> float32 logits (B, M, V)."""
        ...

    def encode(
        self, cond: Cond, x_BxLxC: jax.Array, kind_BxNx2: jax.Array, nd_2xD: jax.Array, mask_NxN: np.ndarray
    ) -> tuple[jax.Array, jax.Array]:
        """The student's: X_t -> the stream (B, N, D) that both heads read, and the condition vector (B, D).

        Row P + i predicts token i from its own x_i and those that `mask` (True: attend) lets it see. `kind` is one-hot,
        noise or data; `kind @ nd`, the embedding of each, is added to every token.
        """
        ...

    def teach(self, cond: Cond, x: Any, mask: Any, chance: Chance | None = None) -> jax.Array:
        """The teacher's, teacher-forced: logits (B, L, V) of every token given those of earlier steps.

        `x`: what the family's teacher reads, codes (B, L) or feature maps (B, L - 1, C); `mask`: True, attend.
        """
        ...


@runtime_checkable
class AheadTrunk(Trunk, Protocol):
    """A student's trunk that the flow head can read: it knows what each position that predicts may hold."""

    def before(self, x_BxLxC: jax.Array) -> jax.Array:
        """X_t -> (B, L - 1, C), what the positions that predict tokens 1.. hold, as the teacher is fed codes.

        Row i - 1 depends on steps before token i's own alone. It stands for `x` in `encode`, whose stream then has
        P - 1 + L rows (see `Layout.ahead`).
        """
        ...


@runtime_checkable
class CachedTrunk(Trunk, Protocol):
    """A trunk that also runs step by step over keys and values that it keeps."""

    def run(self, h_BxMxD: jax.Array, /, *args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        """M embedded positions -> their stream (B, M, D) behind the blocks, and the caches grown by them."""
        ...


# (fresh trunk, teacher's trunk) -> the student trunk's start (App. C): the teacher's arrays, fresh where it has none.
Inherit = Callable[[Params, Params], Params]


class Tokenizer(Protocol):
    """Images <-> codes."""

    def codebook(self, params: Params) -> jax.Array:
        """The (V, C) vectors that codes stand for, as every other module uses them."""
        ...

    def encode(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """Images in [-1, 1] -> code_BxL."""
        ...

    def decode(self, params: Params, token_BxLxC: jax.Array) -> jax.Array:
        """Code vectors, quantised or not -> images, nominally in [-1, 1]."""
        ...

    def loss(self, params: Params, img_BxRxRxc: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Training loss of the tokenizer itself, and what to log."""
        ...


class Draft(NamedTuple):
    """What a sampler returns."""

    token_BxLxC: jax.Array  # what the decoder gets: codebook vectors, or regressed ones behind the split
    code_BxL: jax.Array  # their (nearest) codes
    exact_B: jax.Array  # leading steps certified equal to the teacher's own sample for this noise
    sweeps_B: jax.Array  # refinement sweeps until certified; all that ran where it is not


# Method and baselines are one type: (params, cond, key_B) -> Draft, one key an example.
Generator = Callable[[dict[str, Params], Cond, jax.Array], Draft]


@dataclasses.dataclass(frozen=True)
class Family:
    """What a family's `build(config)` returns."""

    tokenizer: Any
    teacher: Teacher
    student: Any
    teacher_init: Callable[[jax.Array, Params], Params]  # (key, tokenizer's) -> trunk
    teacher_params: Callable[[Params, Params], Params]  # (trunk, tokenizer's) -> what the teacher takes
    rules: Rules = ()  # how its arrays are cut over several devices
    class_table: tuple[str, ...] = ()  # where a trunk keeps a row a class, and behind them one for none; (): nowhere


def guide(logits_2B: jax.Array, weight: jax.Array | np.ndarray | float) -> jax.Array:
    """Classifier-free guidance: rows condition, null, condition, null -> null + weight (condition - null)."""
    pairs_Bx2 = logits_2B.reshape(len(logits_2B) // 2, 2, *logits_2B.shape[1:])
    cond, null = pairs_Bx2[:, 0], pairs_Bx2[:, 1]
    return null + weight * (cond - null)
