"""Run programs of scripts/ in this process, one after another: lines of words in, lines of JSON out."""

import contextlib
import io
import json
import runpy
import sys
import traceback

from absl import flags

OWN = {
    "config",
    "topology",
    "mesh",
    "what",
    "batch",
    "json",
    "effort",
    "compile",
    "dump",
    "batches",
    "depths",
    "repeats",
}


def forget() -> None:
    """Flags and modules of the program before this one."""
    for name in [name for name in flags.FLAGS if name.split(".")[0] in OWN]:
        delattr(flags.FLAGS, name)
    for name in [name for name in sys.modules if name.startswith("dd_jax.scripts")]:
        del sys.modules[name]


def run(words: list[str]) -> dict[str, object]:
    """Its exit status (0 where it falls through), what it wrote, and a traceback, if there was one."""
    forget()
    sys.argv[:] = words
    out, err, code, trace = io.StringIO(), io.StringIO(), None, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(f"dd_jax.scripts.{words[0]}", run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            trace = traceback.format_exc()
    told = err.getvalue() + (code if isinstance(code, str) else "")
    return {"rc": 1 if isinstance(code, str) else code or 0, "out": out.getvalue(), "err": told, "trace": trace}


if __name__ == "__main__":
    found = [run(words) for words in json.load(sys.stdin)]
    print(json.dumps(found), file=sys.__stdout__)
