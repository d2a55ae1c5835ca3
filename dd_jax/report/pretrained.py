"""What a run has learnt from pictures of its own: the pictures, its tokenizer's reconstructions and codes."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd_jax.report import svg
from dd_jax.report.rows import Row, number

SHOWN = 30  # classes of the table, at most
MEASURES = {
    "psnr": "PSNR {psnr:.2f} dB",
    "ssim": "SSIM {ssim:.3f}",
    "fd": "Frechet distance to the originals {fd:.2f}",
    "rfid": "rFID {rfid:.2f} ({rfid_protocol}, of {rfid_count:,} pictures: published ones are of 50,000)",
}


def sections(
    pictures: Mapping[str, Any],
    scores: Mapping[str, Any],
    curve: Sequence[Row],
    grid: Path,
    taught: Sequence[Row],
) -> list[str]:
    """HTML of `pictures` (see `data.pictures.Pictures.told`), of the tokenizer's `scores`, `curve` and last `grid`.

    And of the curve `taught` of the teacher. What is empty, or not there, is left out.
    """
    found = [_pictures(pictures), _tokenizer(scores, curve, grid), _teacher(taught)]
    return [section for section in found if section]


def _pictures(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    classes = sorted(told["classes"].items(), key=lambda one: -one[1])
    most = max(count for _, count in classes) or 1
    bars = "".join(
        f'<div class="bar"><span>{html.escape(name)}</span><i class="teacher" style="width:{count / most:.1%}"></i>'
        f"<b>{count:,}</b></div>"
        for name, count in classes[:SHOWN]
    )
    more = f'<p class="note">and {len(classes) - SHOWN:,} smaller classes</p>' if len(classes) > SHOWN else ""
    lines = [f"{told['train']:,} to train on, {told['held_out']:,} held out", *told["lines"]]
    notes = html.escape(f"{told['name']}: {'; '.join(lines)}")
    return f'<h2>Pictures</h2><p class="note">{notes}</p><div class="tile">{bars}</div>{more}'


def _tokenizer(scores: Mapping[str, Any], curve: Sequence[Row], grid: Path) -> str:
    if not scores:
        return ""
    told = [form.format(**scores) for name, form in MEASURES.items() if name in scores]
    note = f"{scores['held_out']:,} held-out pictures through their codes and back: {', '.join(told)}."
    parts = [f'<h2>Tokenizer</h2><p class="note">{note} Originals above their reconstructions.</p>']
    if grid.exists():
        source = base64.b64encode(grid.read_bytes()).decode()
        parts.append(f'<img class="look" alt="reconstructions" src="data:image/png;base64,{source}">')
    parts.append(_codes(scores))
    plots = [_plot(curve, key, title) for key, title in (("psnr", "PSNR of a batch, dB"), ("gan_weight", "GAN weight"))]
    parts.append(f'<div class="plots">{"".join(plots)}</div>' if any(plots) else "")
    return "".join(parts)


def _codes(scores: Mapping[str, Any]) -> str:
    """A line a map of codes: how much of the codebook it uses."""
    if "maps" not in scores:  # of an earlier version
        return ""
    head = "<th>map</th><th>codes in use</th><th>perplexity</th>"
    lines = "".join(
        f"<tr><td>{side} x {side}</td><td>{scores[f'used/{s}']:.1%}</td><td>{scores[f'perplexity/{s}']:,.0f}</td></tr>"
        for s, side in enumerate(scores["maps"])
        if f"used/{s}" in scores
    )
    note = f"Share of the codebook that {scores['counted']:,} training pictures use. Small maps have little to use."
    return f'<p class="note">{note}</p><table class="narrow"><tr>{head}</tr>{lines}</table>'


def _teacher(taught: Sequence[Row]) -> str:
    """How well each scale, or row of codes, is predicted at the end, under a teacher's own conditions of training."""
    last = taught[-1] if taught else {}
    bands = [key.removeprefix("nll/") for key in last if key.startswith("nll/")]
    if not bands:
        return ""
    lines = "".join(
        f"<tr><td>{band.replace('_', ' ')}</td><td>{last[f'nll/{band}']:.2f}</td>"
        f"<td>{last[f'accuracy/{band}']:.1%}</td></tr>"
        for band in bands
    )
    head = "<th>codes of</th><th>nats a code</th><th>likeliest is right</th>"
    note = f"Its last batch in training, step {last['step']:,}, codes before the next one as they were given to it."
    return f'<h2>Teacher</h2><p class="note">{note}</p><table class="narrow"><tr>{head}</tr>{lines}</table>'


def _plot(curve: Sequence[Row], key: str, title: str) -> str:
    data = [(row["step"], value) for row in curve if (value := number(row, key)) is not None]
    return svg.curve(data, f"tokenizer: {title}", "training step", False, "teacher")
