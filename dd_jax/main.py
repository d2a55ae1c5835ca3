"""python -m dd_jax.main [--config=configs/X.py] [--workdir=DIR] [--stage=STAGE] [--config.FIELD=VALUE ...]

Distilled Decoding, the whole method. Without flags it trains a tokenizer and a raster-order teacher on
handwritten digits, maps noise to images with it (Alg. 1), distils that map into a one-step student (Alg. 2),
samples, scores everything and writes report.html. Stages:

  all       whatever is not done yet, in this order; an interrupted run goes on where it was
  pretrain  tokenizer, teacher and judge for the bundled data
  pairs     Alg. 1: noise-code pairs, in shards
  train     Alg. 2: the student
  sample    pictures of config.sample.plans
  evaluate  results.jsonl: every plan and baseline on shared noises
  speed     speed.json: ms per image, compile times, share of the machine's matmul rate
  report    report.html

Any setting can be changed on the command line: --config.train.steps=2000 --config.seed=1
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

import configs
from dd_jax import runtime
from dd_jax.errors import UserError
from dd_jax.workdir import STAGES

DEFAULT = str(Path(configs.__path__[0]) / "mnist_llamagen.py")
CONFIG = config_flags.DEFINE_config_file("config", DEFAULT, "Settings: a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written (default: runs/<config's name>).")
STAGE = flags.DEFINE_enum("stage", "all", ["all", *STAGES], "What to run.")


def main(argv: list[str]) -> None:
    """Run the stages; a UserError becomes one line and exit status 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    runtime.setup()
    from dd_jax import stages

    name = Path(flags.FLAGS["config"].config_filename).stem
    try:
        stages.run(CONFIG.value, WORKDIR.value or f"runs/{name}", STAGE.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or WORKDIR.value}: {error.strerror}; nothing finished was lost, run again")
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command to go on")


def entry() -> None:
    """Parse flags and go."""
    logging.set_verbosity(logging.WARNING)
    app.run(main)


if __name__ == "__main__":
    entry()
