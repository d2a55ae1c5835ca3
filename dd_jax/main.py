"""python -m dd_jax.main [--config=configs/X.py] [--workdir=DIR] [--stage=STAGE] [--config.FIELD=VALUE ...]

Distilled Decoding, the whole method. Without flags it trains a tokenizer and a raster-order teacher on
handwritten digits, maps noise to images with it (Alg. 1), distils that map into a one-step student (Alg. 2),
samples, scores everything and writes report.html. Stages:

  all       whatever is not done yet, in this order; an interrupted run goes on where it was
  pretrain  tokenizer, teacher and classifier for the bundled data
  pairs     Alg. 1: noise-code pairs, in shards
  train     Alg. 2: the student
  sample    pictures of config.sample.plans; --labels="golden retriever, 3" says of what, or --prompt="a red fox",
            or --prompts=FILE (txt, csv, tsv, jsonl, parquet, or tfds:NAME) where captions are drawn
  evaluate  results.jsonl: every plan and baseline on shared noises
  speed     speed.json: ms per image, compile times, share of the machine's matmul rate
  report    report.html

Published weights (python -m port_weights) take the place of what would be trained: --config.weights.student=DIR.
--config.smoke=true tries a full-size config in minutes: random weights, one layer, a few pairs and steps.
Any setting can be changed on the command line: --config.train.steps=2000 --config.seed=1

Several hosts share the work of --stage=pairs and --stage=train in one --workdir that all of them see. On a TPU pod
and under SLURM: the same command everywhere, with --coordinator=auto. Elsewhere: --coordinator=HOST:PORT of the first
process, --processes=N, and --process=0 to N-1. SIGTERM saves and exits with status 75: the same command goes on.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

import configs
from dd_jax.stages.workdir import STAGES
from dd_jax.system import processes, runtime
from dd_jax.system.errors import UserError

DEFAULT = str(Path(configs.__path__[0]) / "mnist_llamagen.py")
CONFIG = config_flags.DEFINE_config_file("config", None, f"Settings (default: {DEFAULT}).")
WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written (default: runs/<config's name>).")
STAGE = flags.DEFINE_enum("stage", "all", ["all", *STAGES], "What to run.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of the first one, or auto.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are (not with --coordinator=auto).")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this one is, from 0.")
LABELS = flags.DEFINE_string("labels", None, "Classes to draw, by name or number: short for --config.sample.labels.")
PROMPT = flags.DEFINE_string("prompt", None, "A caption to draw: short for --config.sample.prompt.")
PROMPTS = flags.DEFINE_string("prompts", None, "A file of captions to draw: short for --config.sample.prompts.")


def main(argv: list[str]) -> None:
    """Run the stages; a UserError becomes one line and exit status 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    runtime.setup()
    try:
        if COORDINATOR.value is not None:
            processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        elif (PROCESSES.value or 1) > 1:
            raise UserError(f"--processes={PROCESSES.value} needs --coordinator=HOST:PORT")
    except UserError as error:
        sys.exit(f"error: {error}")
    from dd_jax import pipeline
    from dd_jax.system import stopping

    config = CONFIG.value
    if LABELS.value is not None:
        config.sample.labels = LABELS.value
    if PROMPT.value is not None:
        config.sample.prompt = PROMPT.value
    if PROMPTS.value is not None:
        config.sample.prompts = PROMPTS.value
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    try:
        smoke = "_smoke" if config.smoke else ""
        pipeline.run(config, WORKDIR.value or f"runs/{name}{smoke}", STAGE.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    except stopping.Stopped as told:
        print(f"{told}; run the same command to go on", file=sys.stderr)
        sys.exit(stopping.STATUS)
    except OSError as error:
        sys.exit(f"error: {error}; nothing that was finished is lost, run the same command again")
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command to go on")


def parse(argv: list[str]) -> list[str]:
    """Flags; a setting or a config file that does not exist is one clear line."""
    try:
        rest = flags.FLAGS(argv)
        _ = CONFIG.value.family  # a file that cannot be read is only noticed here
        return rest
    except flags.Error as error:
        sys.exit(f"error: {error}; see --help")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = " ".join(str(error).replace("\\n", " ").replace("\\", "").strip('"').split())
        sys.exit(f"error: a --config.FIELD=VALUE does not fit the config: {told}")
    except OSError as error:
        told = " ".join(str(error).split())
        sys.exit(f"error: --config: {told}; the configs that come along are in {Path(DEFAULT).parent}")


def entry() -> None:
    """Parse flags and go."""
    # Not the flag's own default: absl would read that, overrides and all, while this file is imported.
    if not any(word.split("=")[0] in ("--config", "-config") for word in sys.argv[1:]):
        sys.argv.insert(1, f"--config={DEFAULT}")
    logging.set_verbosity(logging.WARNING)
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
