"""The report's style sheet: follows the reader's light or dark setting, needs no other file.

The first column of a table stays while the others scroll. It keeps its lines, and its text stays level with theirs,
where borders are separate and rows are whole pixels high.
"""

import re

LIGHT = {
    "bg": "#fbfbfa",
    "card": "#ffffff",
    "ink": "#1c2024",
    "soft": "#667078",
    "line": "#e3e5e8",
    "student": "#2563eb",
    "teacher": "#59636e",
    "refined": "#0f8a5f",
    "baseline": "#d2600f",
}
DARK = {
    "bg": "#14171a",
    "card": "#1c2024",
    "ink": "#e9ebee",
    "soft": "#98a2ab",
    "line": "#30363c",
    "student": "#6ea2ff",
    "teacher": "#aab4be",
    "refined": "#45c795",
    "baseline": "#f59a4c",
}
RULES = """
* { box-sizing: border-box; }
body { margin: 0; background: @bg; color: @ink;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 64px; overflow-wrap: anywhere; }
a { color: inherit; }
header p { margin: 0; }
.eyebrow { color: @soft; font-size: 14px; }
h1 { font-size: clamp(32px, 9vw, 46px); line-height: 1.1; letter-spacing: -.02em; margin: 6px 0 14px; }
h1 .to { color: @soft; font-weight: 400; }
h1 .new { color: @student; white-space: nowrap; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 48px 0 6px; }
h3 { font-size: 16px; margin: 24px 0 8px; }
.lead { font-size: 18px; max-width: 60em; }
.note { color: @soft; font-size: 14px; max-width: 76em; margin: 4px 0 14px; }
header .note { margin: 10px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); gap: 14px;
  margin: 26px 0 0; }
.tile, .plots svg { background: @card; border: 1px solid @line; border-radius: 10px; }
.tile { padding: 14px 16px 12px; display: flex; flex-direction: column; }
.tile h3 { margin: 0; font-size: 15px; } .tile > p { margin: 0 0 auto; padding-bottom: 8px; color: @soft;
  font-size: 13px; }
.bar { display: grid; grid-template-columns: 74px 1fr 58px; gap: 8px; align-items: center; font-size: 13px;
  line-height: 1.7; }
.bar i { display: block; height: 9px; border-radius: 3px; min-width: 2px; }
.bar b { text-align: right; font-variant-numeric: tabular-nums; }
i.student { background: @student; } i.teacher { background: @teacher; }
i.refined { background: @refined; } i.baseline { background: @baseline; }
.grid { display: flex; gap: 12px; overflow-x: auto; padding: 4px 0 8px; }
.grid img { display: block; image-rendering: pixelated; border-radius: 3px; max-width: none; }
.look { display: block; max-width: 100%; border-radius: 6px; margin: 0 0 12px; }
.head { overflow-wrap: normal; height: 44px; line-height: 1.25; font-size: 14px; display: flex; flex-direction: column;
  justify-content: flex-end; padding-bottom: 6px; }
.head b { font-weight: 600; } .head span { color: @soft; font-size: 12.5px; }
.rowlabels div:not(.head) { display: flex; align-items: center; justify-content: flex-end; color: @soft;
  font-size: 14px; min-width: 14px; }
.rowlabels { flex: 0 0 auto; max-width: min(300px, 34vw); line-height: 1.15; text-align: right; }
.scroll { overflow-x: auto; }
.scroll > table { background: @bg; } details .scroll > table { background: @card; }
.scroll th:first-child, .scroll td:first-child { position: sticky; left: 0; background: inherit; }
.scroll tr { background: inherit; } .scroll tbody { background: inherit; }
table { border-collapse: separate; border-spacing: 0; font-size: 13.5px;
  font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: 6px 5px; border-bottom: 1px solid @line; white-space: nowrap; line-height: 21px; }
th { color: @soft; font-weight: 600; vertical-align: bottom; white-space: normal; line-height: 16px;
  overflow-wrap: normal; font-size: 12.5px; }
th:first-child, td:first-child, td.text { text-align: left; }
table.narrow { width: auto; } table.narrow th, table.narrow td { padding-right: 14px; }
dl { margin: 8px 0 0; font-size: 14px; } dd { margin: 0; } dt { font-weight: 600; }
dl.facts > div { display: flex; flex-wrap: wrap; gap: 0 16px; padding: 5px 0; border-bottom: 1px solid @line; }
dl.facts dt { flex: 0 1 330px; font-weight: 400; color: @soft; } dl.facts dd { flex: 1 1 300px; min-width: 0; }
dl.words { columns: 2 340px; column-gap: 36px; }
dl.words > div { break-inside: avoid; padding: 0 0 6px; } dl.words dd { color: @soft; display: inline; }
dl.words dt { display: inline; padding-right: 8px; }
td .dot, .legend .dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%;
  margin-right: 8px; }
.dot.student { background: @student; } .dot.teacher { background: @teacher; }
.dot.refined { background: @refined; } .dot.baseline { background: @baseline; }
.dot.other { background: @line; }
tr.first td { font-weight: 600; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.legend { font-size: 13px; color: @soft; margin: 6px 0 10px; } .legend span { margin-right: 18px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 14px;
  margin: 0 0 14px; }
.plots.two { grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 520px)); }
svg { width: 100%; height: auto; font-size: 11px; } svg text { fill: @ink; }
svg .title { font-size: 13px; font-weight: 600; } svg .tick { fill: @soft; }
svg .gridline { stroke: @line; } svg .mark { stroke: @soft; } svg .label { font-size: 10.5px; }
svg path { fill: none; stroke-width: 2; } svg path.raw { opacity: .25; stroke-width: 1; }
path.student { stroke: @student; } path.teacher { stroke: @teacher; }
path.refined { stroke: @refined; } path.baseline { stroke: @baseline; }
circle.student { fill: @student; } circle.teacher { fill: @teacher; }
circle.refined { fill: @refined; } circle.baseline { fill: @baseline; }
circle { stroke: @card; stroke-width: 1.5; }
circle.published { fill: none; stroke: @soft; } .dot.published { border: 1.5px solid @soft; }
th.text { text-align: left; } td.wrap { white-space: normal; min-width: 110px; }
table { overflow-wrap: normal; } th[colspan] { text-align: center; border-left: 1px solid @line; }
table.published { font-size: 12.5px; }
.apart { border: 1px dashed @soft; border-radius: 10px; padding: 0 clamp(10px, 2vw, 20px) 20px; margin-top: 40px; }
.apart h2 { margin-top: 20px; }
.sources { columns: 2 340px; column-gap: 36px; font-size: 13px; padding-left: 26px; margin: 8px 0 0; }
.sources li { break-inside: avoid; padding-bottom: 5px; } .sources i { color: @soft; font-style: normal; }
details { border: 1px solid @line; border-radius: 10px; padding: 10px 16px; margin-top: 16px;
  background: @card; }
summary { cursor: pointer; font-weight: 600; } pre { overflow-x: auto; }
"""


def style_sheet() -> str:
    """The rules in light colours, and again in dark ones for readers who prefer those."""
    dark = f"@media (prefers-color-scheme: dark) {{{_paint(DARK)}}}"
    return f":root {{ color-scheme: light dark; }}{_paint(LIGHT)}{dark}"


def _paint(colours: dict[str, str]) -> str:
    return re.sub(r"@(\w+)", lambda match: colours[match[1]], RULES)
