"""What the run took and on what: the speed of every plan, and the machine, in units that a reader knows."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.report.rows import Row, at_once, cell, number
from dd_jax.report.words import definitions
from dd_jax.system.progress import duration

REFERENCE_RATE = 170.0  # GFLOP/s: the machine whose wall times the project's limits are written for
STAGES = {
    "pretrain": "training tokenizer, teacher and feature classifier",
    "pairs": "drawing pairs of noise and teacher's tokens",
    "train": "training the student",
    "sample": "drawing sample sets",
    "evaluate": "scoring",
    "speed": "timing",
}
COLUMNS = {  # key of speed.json -> heading, what it means
    "steps": ("steps", ""),
    "ms_per_image": ("ms / picture", ""),
    "images_per_s": ("pictures / s", ""),
    "compile_s": ("compiling, s", "once, before the first picture"),
    "gflop_per_image": ("GFLOP / picture", "of matrix products"),
    "share_of_matmul": ("compute used", "matrix products a second, as a share of what one large product reaches here"),
    "share_of_stream": (
        "bandwidth used",
        "time that reading the weights once a pass needs here, as a share of the whole",
    ),
    "memory_gb": ("memory", "held while drawing, weights included"),
}
DECODE = "decode"
MORE = {"device": "device", "cores": "CPU cores"}


def speed(rows: Sequence[Row]) -> str:
    """Times of every plan, a table a batch size, when nothing else was going on."""
    if not rows:
        return ""
    keys = [key for key in COLUMNS if any(number(row, key) is not None for row in rows)]
    keys += list(dict.fromkeys(key for row in rows for key in row if key not in {*COLUMNS, "plan", "batch"}))
    head = "".join(f"<th>{html.escape(COLUMNS.get(key, (key.replace('_', ' '),))[0])}</th>" for key in keys)
    parts = []
    for told in dict.fromkeys(at_once(row) for row in rows):
        lines = "".join(_line(row, keys) for row in rows if at_once(row) == told)
        table = f'<table class="narrow"><tr><th>plan</th>{head}</tr>{lines}</table>'
        title = f"<h3>{told[0].upper()}{told[1:]}</h3>" if told else ""
        parts.append(f'{title}<div class="scroll">{table}</div>')
    explained = {COLUMNS[key][0]: COLUMNS[key][1] for key in keys if COLUMNS.get(key, ("", ""))[1]}
    explained |= {DECODE: "tokens to pictures alone"} if any(row.get("plan") == DECODE for row in rows) else {}
    note = '<p class="note">From noise to decoded pictures, compiled and warm.</p>'
    return f'<h2>Speed</h2>{note}{"".join(parts)}<dl class="words">{definitions(explained)}</dl>'


def _line(row: Row, keys: Sequence[str]) -> str:
    cells = "".join(f"<td>{_value(row, key)}</td>" for key in keys)
    return f"<tr><td><code>{html.escape(str(row.get('plan')))}</code></td>{cells}</tr>"


def _value(row: Row, key: str) -> str:
    value = number(row, key)
    if value is None or key not in COLUMNS:
        return cell(row, key)
    return memory(value) if key == "memory_gb" else f"{value:.0%}" if key.startswith("share") else cell(row, key)


def memory(gigabytes: float) -> str:
    """4.35 MB, 1.2 GB: three digits in the unit that fits."""
    scaled, unit = (gigabytes, "GB") if gigabytes >= 1 else (gigabytes * 1e3, "MB")
    return f"{scaled:.3g} {unit}" if scaled < 999.5 else f"{scaled:.0f} {unit}"


def facts(given: Mapping[str, Any]) -> str:
    """What `page.render` was told of the run, as a list that wraps."""
    stages: Mapping[str, float] = given.get("stages") or {}
    found: dict[str, str] = {}
    for name, seconds in stages.items():
        found[f"{STAGES[name]} ({name})" if name in STAGES else str(name)] = duration(seconds)
    if stages:
        total, work = sum(stages.values()), given.get("matmul_gflop")
        found["all of it, wall time"] = duration(total)
        if work and total:
            told = f"wall time \N{MULTIPLICATION SIGN} {work / total:.0f} / {REFERENCE_RATE:.0f}"
            ran = f"float32 matrix products ran at {work / total:.0f} GFLOP/s here while it ran"
            estimate = f"about {duration(work / REFERENCE_RATE)} ({told}; {ran})"
            found[f"the same on the two cores that README's minutes are of ({REFERENCE_RATE:.0f} GFLOP/s)"] = estimate
    if rate := given.get("matmul_gflops"):
        size = "of two matrices, 2048 \N{MULTIPLICATION SIGN} 2048, float32"
        found["compute, measured"] = f"{rate:.0f} GFLOP/s in the product {size}"
    for stage, share in (given.get("train_share") or {}).items():
        found[f"a training step of the {stage}"] = f"reaches {share:.0%} of that"
    if number(given, "stream_gbs"):
        found["memory bandwidth, measured"] = f"{given['stream_gbs']:.3g} GB/s, reading a matrix for a product"
    found["versions"] = ", ".join(f"{k} {v}" for k, v in (given.get("versions") or {}).items())
    known = {"title", "stages", "matmul_gflop", "matmul_gflops", "train_share", "versions", "speed", "stream_gbs"}
    found |= {
        MORE.get(key, str(key)): str(value).replace("cpu (cpu)", "CPU")
        for key, value in given.items()
        if key not in known
    }
    found = {key: value for key, value in found.items() if value}
    return f'<h2>The run</h2><dl class="facts">{definitions(found)}</dl>' if found else ""
