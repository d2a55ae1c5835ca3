#!/usr/bin/env bash
# The guess: how long a gradio app takes from a click to its answer depends on the handler and on the size of the
# answer, not on how often the page was clicked before; what a browser is shown it forgets with the page.
#
# What happens: since 6.24 the page keeps the inputs and outputs of its last hundred events in localStorage
# (`run_history`, on unless launch says otherwise), and reads, changes and writes the whole list again at each event,
# several times. With outputs of some ten kilobytes (a few small pictures as data URLs in gr.HTML) a click takes a
# multiple of its time after a hundred clicks. launch(run_history=False) ends it, and the link in the footer with it.
#
# Versions: gradio 6.31.0 (6.23.1 has no such history), playwright 1.65.2, Debian's Chromium.
# Source: gradio/routes.py (launch, run_history), gradio/templates/frontend (localStorage, Nt = 100).
# Needs chromium on the PATH.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gradio==6.31.0 playwright==1.65.2
cd "$folder"

cat > look.py <<'PY'
import itertools
import shutil
import statistics

import gradio as gr
from playwright.sync_api import sync_playwright

CLICKS = 120
CLICK = """() => new Promise(done => {
  const out = document.querySelector('#out'), begun = performance.now(), before = out.innerText
  new MutationObserver((_, observer) => {
    if (out.innerText != before) { observer.disconnect(); done(performance.now() - begun) }
  }).observe(out, {subtree: true, childList: true, characterData: true})
  document.querySelector('#go').click()
})"""
print("gradio", gr.__version__)


def app():
    numbers = itertools.count()
    with gr.Blocks() as page:
        go, out = gr.Button("go", elem_id="go"), gr.HTML("", elem_id="out")
        go.click(lambda: f"<p title='{'x' * 30_000}'>{next(numbers)}</p>", None, out)
    return page


def look(browser, **options):
    made = app()
    _, address, _ = made.launch(quiet=True, prevent_thread_lock=True, ssr_mode=False, **options)
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#go")
    ms = [page.evaluate(CLICK) for _ in range(CLICKS)]
    kept = page.evaluate("Object.values(localStorage).join('').length")
    made.close()
    first, last = statistics.median(ms[5:25]), statistics.median(ms[-20:])
    print(f"{options or 'as it comes'}: first clicks {first:.0f} ms, last {last:.0f} ms; kept {kept} characters")
    return kept


with sync_playwright() as playwright:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    browser = playwright.chromium.launch(executable_path=program, args=flags)
    asis, without = look(browser), look(browser, run_history=False)
    browser.close()
assert asis > 1_000_000, "changed: the answers are not kept"
assert without < 10_000, "changed: the answers are kept although launch says no"
PY
GRADIO_ANALYTICS_ENABLED=False venv/bin/python look.py
