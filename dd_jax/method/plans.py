"""Plans: how to sample, as a short string over AR steps 0..S-1, run from left to right.

`S t`    noise back at steps >= t, predict them with the student           (Alg. 3: `S0`, `S0 S80`)
`T a:b`  snap steps < a to their nearest codes, teacher does steps a..b-1  (Alg. 4: `S0 T60:80 S80`)
`J n`    n refinement sweeps through teacher and flow; `J*` to the fixed point, the teacher's own sample;
         `J n/w`, `J*/w`: only the w steps behind the certified prefix
"""

import dataclasses
import re
import warnings
from collections.abc import Sequence

from dd_jax.system.errors import UserError

WORD = re.compile(r"S(?P<t>\d+)|T(?P<a>\d+):(?P<b>\d+)|J(?P<n>\d+|\*)(/(?P<w>\d+))?")


@dataclasses.dataclass(frozen=True)
class Op:
    """One word of a plan: S has `a` = t, T has `a` and `b`, J has `sweeps` (None: all) and `window`."""

    kind: str
    a: int = 0
    b: int = 0
    sweeps: int | None = None
    window: int | None = None


def parse(plan: str, steps: int, trained: Sequence[int] = (), strict: bool = False) -> tuple[Op, ...]:
    """Plan -> ops. UserError on an unknown word or a step out of range.

    A boundary that the student was not `trained` for is warned of, or an error with `strict`.
    """
    ops = tuple(_read(word, plan, steps) for word in spelled(plan).split())
    drawn = 0
    for op in ops:
        if op.a > drawn:
            raise UserError(f"plan {plan!r}: {op.kind}{op.a} needs steps < {op.a}, only {drawn} are drawn")
        drawn = max(drawn, op.b) if op.kind == "T" else steps
    if drawn < steps:
        raise UserError(f"plan {plan!r} leaves steps {drawn}..{steps - 1} undrawn: end it with S{drawn}")
    for op in ops:
        if op.kind == "S" and trained and op.a not in trained:
            told = f"plan {plan!r}: the student was trained for steps {sorted(set(trained))}, not {op.a}"
            if strict:
                raise UserError(told)
            warnings.warn(told, stacklevel=2)
    return ops


def spelled(plan: str) -> str:
    """A plan as it is usually written: one space between words, none inside. UserError for what is no string."""
    if not isinstance(plan, str):
        raise UserError(f"a plan is a string, as 'S0' or 'S0 T4:5 S5'; got {plan!r}")
    return " ".join(re.sub(r"([STJ])\s+(?=[\d*])", r"\1", plan).split())


def _read(word: str, plan: str, steps: int) -> Op:
    """One word."""
    match = WORD.fullmatch(word)
    if not match:
        known = "S<t>, T<a>:<b>, J<sweeps>, J* or J<sweeps>/<window>"
        raise UserError(f"plan {plan!r}: cannot read {word!r}; words are {known}")
    t, a, b, n, w = match.group("t", "a", "b", "n", "w")
    if t is not None:
        if int(t) >= steps:
            raise UserError(f"plan {plan!r}: {word!r} is out of range, steps are 0..{steps - 1}")
        return Op("S", int(t))
    if a is not None:
        if not int(a) < int(b) <= steps:
            raise UserError(f"plan {plan!r}: {word!r} is out of range, it needs 0 <= a < b <= {steps}")
        return Op("T", int(a), int(b))
    if w is not None and not 0 < int(w) <= steps:
        raise UserError(f"plan {plan!r}: the window of {word!r} must lie in 1..{steps}")
    return Op("J", sweeps=None if n == "*" else int(n), window=int(w) if w else None)


def cost(plan: str, steps: int) -> int | None:
    """Network passes in sequence (a guided pair counts once); None where `J*` decides at run time."""
    ops = parse(plan, steps)
    if any(op.kind == "J" and op.sweeps is None for op in ops):
        return None
    return sum({"S": 1, "T": op.b - op.a, "J": op.sweeps or 0}[op.kind] for op in ops)
