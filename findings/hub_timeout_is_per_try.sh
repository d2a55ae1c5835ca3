#!/usr/bin/env bash
# Guess: hf_hub_download(..., etag_timeout=1) says within a second or two that there is no network.
# Really: the request goes through a backoff of five retries (after 1, 2, 4, 8 and 8 seconds); the timeout counts for each
#   try, no argument of the function shortens the waits, and each try prints a warning. A refused connection, which is known
#   at once, is reported after 23 seconds. (0.36.0 does the same silently; 1.0.1 and 1.1.0 answer within one.) Only
#   local_files_only=True or HF_HUB_OFFLINE=1 answer at once, so a program that wants to tell its user has to ask the
#   network itself first.
# Versions: huggingface_hub 2.4.0, Python 3.11.
# Source: huggingface_hub/utils/_http.py (_http_backoff_base), huggingface_hub/file_download.py
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q huggingface_hub==2.4.0
# Port 9 of this machine refuses at once.
HF_ENDPOINT=http://127.0.0.1:9 HF_HOME=$work/home NO_PROXY=127.0.0.1 "$work/venv/bin/python" - <<'PYTHON'
import sys, time

import huggingface_hub

print("huggingface_hub", huggingface_hub.__version__)


def seconds(**how):
    start = time.monotonic()
    try:
        huggingface_hub.hf_hub_download("org/model", "model.pt", **how)
    except Exception as error:
        print(how, type(error).__name__, end=" ")
    print(f"after {time.monotonic() - start:.1f} s")
    return time.monotonic() - start


slow, local = seconds(etag_timeout=1), seconds(local_files_only=True)
sys.exit(not (slow > 15 and local < 2))
PYTHON
