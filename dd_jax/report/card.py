"""The model card of a run on the Hub: what it is, its figures and how they were measured, and how to load it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.data import emoji
from dd_jax.report import words
from dd_jax.report.rows import METRICS, Row, cell, comparable, kind, number, other
from dd_jax.system import hub

COLUMNS = ("steps", "fd", "fd_teacher", "class_accuracy", "caption_found", "precision", "recall", "agreement", "n")
SCORES = ("fid", "sfid", "inception_score", "precision", "recall")  # of scores/*.json
ABOUT = {
    "tokenizer": "pictures to codes and back",
    "text": "reads captions",
    "teacher": "the autoregressive model that was distilled",
    "student": "draws in one step what the teacher draws in {steps}",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """What a card tells of."""

    repo: str
    config: Mapping[str, Any]
    steps: int | None  # of the teacher
    parts: Sequence[str]  # trained here, and in the repository
    ported: Mapping[str, Mapping[str, Any]]  # part -> {"id", "origin", "licence", "here": is it in the repository?}
    results: Sequence[Row]
    scores: Sequence[Row]
    picture: str  # a file of the repository, or none
    licence: str

    @property
    def data(self) -> str:
        return str((self.config.get("data") or {}).get("name"))

    @property
    def captions(self) -> bool:
        return bool(self.config.get("text"))


def build(run: Published) -> Any:
    """A `huggingface_hub.ModelCard`."""
    client = hub.client()
    owners = [found[1] for one in run.ported.values() if (found := _OWNER.search(str(one.get("origin"))))]
    data = client.ModelCardData(
        license=run.licence or None,
        library_name="dd_jax",
        pipeline_tag="text-to-image" if run.captions else "unconditional-image-generation",
        tags=["distilled-decoding", "jax", "one-step", str(run.config.get("family"))],
        base_model=list(dict.fromkeys(owners)) or None,
        model_name=run.repo.split("/")[1],
        eval_results=_eval_results(run) or None,
    )
    return client.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(run)}")


_OWNER = re.compile(r"(?:huggingface\.co/|hf://)([\w.-]+/[\w.-]+)")


def _text(run: Published) -> str:
    sections = [f"# {run.repo.split('/')[1]}", words.ABOUT, _what(run)]
    if run.picture:
        sections.append(f"![Rows share their noise]({run.picture})")
    sections += ["## Load it", _load(run)]
    if run.results:
        sections += ["## Figures", _figures(run.results)]
    if run.scores:
        sections += ["## Scores", _scores(run.scores)]
    return "\n\n".join([*sections, "## Where it comes from", _sources(run)]) + "\n"


def _what(run: Published) -> str:
    steps = str(run.steps or "many")
    rows = [f"| `{part}/` | {ABOUT[part].format(steps=steps)} |" for part in run.parts]
    rows += [f"| `{one['id']}/` | the {part}, ported | " for part, one in run.ported.items() if one["here"]]
    guided = (
        f"Pairs were drawn with guidance {run.config.get('guidance')}: it is the student's own and cannot be changed."
    )
    return "\n".join(["| folder | |", "|---|---|", *rows]) + (f"\n\n{guided}" if "student" in run.parts else "")


def _load(run: Published) -> str:
    lacking = [(part, str(one["id"])) for part, one in run.ported.items() if not one["here"]]
    needed = [(part, id) for part, id in lacking if part in ("tokenizer", "text")]
    given = "".join(f', {part}="weights/{id}"' for part, id in needed)
    asked = '["a caption"]' if run.captions else "[3, 7]"
    plan = "S0" if "student" in run.parts else f"T0:{run.steps}"
    lines = ["```python", "import dd_jax", "", f'pipe = dd_jax.load("hf://{run.repo}"{given})']
    lines += [f'images = pipe.sample({asked}, plan="{plan}", seed=0)  # uint8 (B, R, R, channels)', "```"]
    if lacking:
        ids = " ".join(id for _, id in lacking)
        optional = " (the teacher for plans with T or J alone)" if ("teacher" in dict(lacking)) else ""
        lines += [
            "",
            f"Before that, `python -m port_weights {ids} --out weights` fetches what others published{optional}.",
        ]
    plans = dict.fromkeys(str(row.get("plan")) for row in run.results if kind(row) in ("student", "refined", "teacher"))
    told = [f"- {name}: {text.removeprefix('a plan: ')}" for name, text in words.of_plans(" ".join(plans)).items()]
    if plans:
        lines += ["", f"Plans that were measured: {', '.join(f'`{plan}`' for plan in plans)}.", "", *told]
    return "\n".join(lines)


def _figures(results: Sequence[Row]) -> str:
    rows = comparable(results)
    used = [key for key in COLUMNS if any(number(row, key) is not None for row in rows)]
    lines = [_row(["", "plan", *(METRICS[key].head for key in used)]), _row(["---"] * (len(used) + 2))]
    for row in rows:
        name = " ".join(str(row[key]) for key in ("generator", "split") if row.get(key))
        plan = f"`{row['plan']}`" if row.get("plan") else ""
        lines.append(_row([name.replace("*", r"\*"), plan, *(cell(row, key) for key in used)]))
    told = [f"- {METRICS[key].head}: {METRICS[key].explain}" for key in used if METRICS[key].explain]
    if words.OF_CLASSIFIER & {*used}:
        told.append(f"- The feature classifier is {words.CLASSIFIER}")
    return "\n".join([*lines, "", *told])


def _scores(scores: Sequence[Row]) -> str:
    used = [key for key in SCORES if any(number(row, key) is not None for row in scores)]
    lines = [_row(["plan", "protocol", "samples", "reference", *used]), _row(["---"] * (len(used) + 4))]
    for row in scores:
        reference = (row.get("reference") or {}).get("file")
        few = " (quick: compare with none of another count)" if row.get("fast") else ""
        about = [f"`{row.get('plan')}`", row.get("protocol"), f"{row.get('n')}{few}", reference]
        lines.append(_row([*map(str, about), *(cell(row, key) for key in used)]))
    return "\n".join([*lines, "", "FIDs of two protocols, or of two numbers of samples, cannot be compared."])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sources(run: Published) -> str:
    lines = [f"- {part} `{one['id']}`: {_origin(one)}" for part, one in run.ported.items()]
    trained = f"- {', '.join(run.parts)}: trained by dd_jax on"
    lines.append(f"{trained} `{run.data}`" + (f", {run.licence}" if run.licence else ""))
    if run.data == "emoji":
        lines.append(f"- {emoji.ATTRIBUTION}")
    return "\n".join(lines)


def _origin(one: Mapping[str, Any]) -> str:
    return ", ".join(str(one[key]) for key in ("origin", "licence") if one.get(key)) or "not known"


def _eval_results(run: Published) -> list[Any]:
    """The student's figures for the Hub's own tables, each with its plan."""
    task = {"task_type": "image-generation", "dataset_type": run.data, "dataset_name": run.data}
    found = []
    for row in comparable(run.results):
        for key in COLUMNS if kind(row) == "student" and not other(row) else ():
            if key not in ("steps", "n") and (value := number(row, key)) is not None:
                name = f"{METRICS[key].head.rstrip(' ↑↓')}, plan {row['plan']}"
                split = {"dataset_split": str(row["split"])} if row.get("split") else {}
                about = {"metric_args": {"plan": row["plan"], "n": row.get("n")}}
                found.append((task | split, key, value, name, about))
    for row in run.scores:
        for key in SCORES:
            if (value := number(row, key)) is not None:
                args = {name: row.get(name) for name in ("plan", "protocol", "n")}
                name = f"{key}, plan {row.get('plan')}, protocol {row.get('protocol')}, {row.get('n')} samples"
                found.append((task, key, value, name, {"metric_args": args}))
    result = hub.client().EvalResult
    return [
        result(**of, metric_type=key, metric_value=value, metric_name=name, **about)
        for of, key, value, name, about in found
    ]
