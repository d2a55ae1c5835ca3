"""Ways of training a student, for `python -m scripts.study` at equal charged time: name -> changed settings."""

from typing import Any

FLOW: dict[str, Any] = {
    "student.head": "flow",
    "train.objective": "mixed",
    "train.timesteps": (0,),
    "sample.tau": 0.7,
    "evaluate.taus": (0.55, 0.85, 1.0),
}
METHODS: dict[str, dict[str, Any]] = {
    "dd1": {"train.timesteps": (0,)},
    "mixed": FLOW,
    "on_policy": {**FLOW, "train.objective": "on_policy"},
    "pairs": {**FLOW, "train.objective": "pairs"},
    "mixed + tau of drawing": {**FLOW, "train.tau": 0.7},
    "mixed + pairs to 0": {**FLOW, "train.pairs": (1.0, 1.0, 0.0)},
    "mixed + from the teacher": {**FLOW, "weights.start": None},
    "dd1 + drift": {"train.timesteps": (0,), "train.distance": "drift", "train.embedding": 0.1},
    "dd1 + refined": {"train.timesteps": (0,), "train.objective": "refined"},
    "dd1 + middle": {"train.timesteps": (0,), "train.middle": 0.4},
    "mixed + middle": {**FLOW, "train.middle": 0.4},
}
