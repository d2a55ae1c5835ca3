"""The words of the page, each explained once: those that the page uses, no others."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.report.rows import METRICS, Row, kind

ABOUT = (
    "Distilled Decoding (arXiv 2412.17153): an autoregressive image model, the teacher, draws a picture token after "
    "token; a student learns to draw the same picture from the same noise in one pass."
)
CLASSIFIER = (
    "a small network that was trained here to tell this data's classes apart. The scores look through it, not through "
    "Inception, which is trained on photographs and whose weights are not bundled: they can be compared within this "
    "data only, not with published FIDs."
)
ALWAYS = {
    "token": "one of the vectors (entries of a codebook) that a picture is coded as; the tokenizer's decoder makes the "
    "picture of them.",
    "noise": "Gaussian, one vector a token. A deterministic flow turns it into the teacher's choice of token, so that "
    "noise decides the picture; the student learns this map.",
}
WORD = re.compile(r"([STJ])(\d+(?::\d+)?|\*)")  # of a plan
MOST = 4  # words of a letter that are explained
PUBLISHED = "S0 S80 T0:80"  # words as the published tables have them
METHODS = {
    "onestep": (
        "onestep*",
        "no distillation: each token drawn for itself, as often as the teacher uses it there (its marginals).",
    ),
    "skip": ("skip-8", "no distillation: the teacher, but its last {} steps drawn as in onestep*."),
}
SPLITS = ("seen, held out", "captions that training used, and captions that it did not.")
SCORES = {
    "FID, sFID": "Frechet distance between Inception's features of samples and of ImageNet's pictures, over the whole "
    "picture and over places in it. Lower is better.",
    "IS": "Inception score: how surely Inception names what it sees, and how many different things. Higher is better.",
    "precision, recall": "share of samples that lie among real pictures (quality), and the other way round (variety). "
    "Higher is better.",
    "adm, pytorch_fid, clean": "protocols: how pictures are resized and which Inception weights look at them. FIDs of "
    "two protocols cannot be compared.",
    "n, #para": "number of samples that a score is of; number of the model's parameters.",
}
OF_CLASSIFIER = {"fd", "fd_teacher", "class_accuracy", "caption_found", "precision", "recall"}


def section(results: Sequence[Row], scores: Sequence[Row] = (), published: bool = False) -> str:
    """The glossary as HTML; empty where the page has no rows."""
    if not (results or scores or published):
        return ""
    used = {key for row in results for key in row if row[key] is not None} | {"steps"}
    found: dict[str, str] = dict(ALWAYS)
    found |= of_plans(" ".join([*(str(row.get("plan") or "") for row in [*results, *scores]), PUBLISHED * published]))
    names = " ".join(f"{row.get('generator')} {row.get('plan')}" for row in [*results, *scores]) + " skip" * published
    for name, (told, text) in METHODS.items():
        if name in names or published:
            own = re.search(rf"{name}-(\d+)", names)
            found[f"{name}-{own[1]}" if own else told] = text.format(own[1] if own else 8)
    if used & OF_CLASSIFIER:
        found["feature classifier"] = CLASSIFIER
    if any(row.get("split") for row in results):
        found |= dict([SPLITS])
    if any(kind(row) == "refined" for row in results):
        found["refined"] = "a draft of the student, made the teacher's own picture by sweeps (J)."
    found |= {_plain(m.head): m.explain for key, m in METRICS.items() if key in used and m.explain}
    found |= SCORES if scores or published else {}
    return f'<h2 id="words">Words</h2><dl class="words">{definitions(found)}</dl>'


def of_plans(plans: str) -> dict[str, str]:
    """What the words of these plans do, the same letter's together."""
    words: dict[str, list[str]] = {}
    for letter, what in WORD.findall(plans):
        if what not in (known := words.setdefault(letter, [])):
            known.append(what)
    found = {}
    for letter, explain in (("S", _student), ("T", _teacher), ("J", _sweeps)):
        if own := words.get(letter, [])[:MOST]:
            found[", ".join(letter + what for what in own)] = f"a plan: {explain(own)}"
    return found


def _student(starts: Sequence[str]) -> str:
    return f"the student draws all tokens from step {' or '.join(starts)} on in one pass."


def _teacher(spans: Sequence[str]) -> str:
    ends = [(int(first), int(end or first)) for first, _, end in (span.partition(":") for span in spans)]
    told = [f"{first} to {end - 1}" if end - first > 1 else f"{first} alone" for first, end in ends]
    return f"the teacher takes steps {', or '.join(told)}, one after another."


def _sweeps(counts: Sequence[str]) -> str:
    times = [f"{count} times" if count != "1" else "once" for count in counts if count != "*"]
    to_the_end = "until nothing changes: then every token is certified to be what the teacher would have drawn alone"
    told = ", or ".join([*times, *[to_the_end] * ("*" in counts)])
    return f"the teacher refines all tokens at once (a sweep), {told}."


def definitions(terms: Mapping[str, Any]) -> str:
    """Rows of a <dl>, which wrap as the page narrows."""
    return "".join(
        f"<div><dt>{html.escape(str(term))}</dt><dd>{html.escape(str(text))}</dd></div>" for term, text in terms.items()
    )


def _plain(head: str) -> str:
    return head.rstrip(" ↑↓")
