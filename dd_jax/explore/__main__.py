"""python -m dd_jax.explore [FOLDER] [--host 127.0.0.1] [--port 7860] [--share] [--dtype bfloat16] [--no-browser]

Opens a model in the browser, to play with: plans side by side on the same noise, settings that answer at once, noise
locked token by token, walks, pictures of one's own, repainting. FOLDER is a finished run, a folder of weights, or
hf://owner/name; without one the newest run below runs/. Needs gradio: pip install 'dd_jax[explore]'.

    python -m dd_jax.explore runs/mnist_flow

Only this machine reaches the page, unless --host says otherwise (0.0.0.0: whoever reaches the machine; nobody is asked
for a password). On a Space of the Hugging Face Hub, app.py is two lines: docs/explorer.md.
"""

import argparse
import importlib.util
import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from dd_jax.configs.kinds import STORED
from dd_jax.system import files, hub
from dd_jax.system.errors import UserError

HOST = "127.0.0.1"


def newest(runs: Path = Path("runs")) -> Path:
    """The run that was written to last. UserError if there is none."""
    found = [path for path in runs.glob("*/config.json") if (path.parent / "weights" / "student").is_dir()]
    if not found:
        raise UserError(
            f"there is no finished run in {runs}/: name a folder of weights, or train a small one in minutes: "
            "python -m dd_jax.main --config=configs/digits_llamagen.py"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


def main(words: Sequence[str] | None = None) -> None:
    """The command. `words`: of its command line, by default those of this process."""
    parser = argparse.ArgumentParser("python -m dd_jax.explore", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", nargs="?", type=hub.path, help="a run, weights, or hf://owner/name")
    parser.add_argument("--host", help=f"the address to listen on (default: {HOST}, this machine alone)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="an address that anybody on the Internet can use")
    parser.add_argument("--dtype", choices=STORED, help="in which both compute; int8: the teacher's weights")
    parser.add_argument("--no-browser", action="store_true", help="open no window")
    for part in ("tokenizer", "text", "teacher"):
        parser.add_argument(f"--{part}", type=hub.path, help="its folder, where it is not beside the model")
    args = parser.parse_args(words)
    try:
        if importlib.util.find_spec("gradio") is None:
            raise UserError("the explorer needs gradio: pip install 'dd_jax[explore]'")
        if args.port is not None and not 0 < args.port < 65536:
            raise UserError(f"--port={args.port}: a port lies in 1..65535")
        files.spelled_in(args)
        serve(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("closed")


def serve(args: argparse.Namespace) -> None:
    """Load, say where, and wait."""
    from dd_jax.system import runtime  # here and below: what takes seconds to import

    folder = args.folder or newest()
    runtime.setup()
    print(f"loading {folder} ...", flush=True)
    from dd_jax import pipeline

    given = {part: getattr(args, part) for part in ("tokenizer", "text", "teacher") if getattr(args, part)}
    pipe = pipeline.load(folder, dtype=args.dtype, **given)
    from dd_jax.explore import page

    made = page.build(pipe, Path(str(folder)).name, str(folder))
    space = "SPACE_ID" in os.environ  # whose visitors come from elsewhere
    try:
        address = page.launch(made, args.host or ("0.0.0.0" if space else HOST), args.port, args.share)
    except OSError as error:
        raise UserError(f"the page cannot be served ({error}): choose another --port or --host") from error
    print(f"open {address} (Ctrl-C closes it)", flush=True)
    if not (args.no_browser or space):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    made.block_thread()


if __name__ == "__main__":
    main()
