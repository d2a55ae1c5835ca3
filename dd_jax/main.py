"""python -m dd_jax.main [--config=configs/X.py] [--workdir=DIR] [--stage=STAGE] [--config.FIELD=VALUE ...]

The whole method on handwritten digits, in minutes:
  python -m dd_jax.main
Published weights draw:
  python -m dd_jax.main --config=configs/llamagen_l.py --labels="golden retriever, volcano" \\
      --config.weights.tokenizer=weights/vq16 --config.weights.student=weights/llamagen_l_dd
An idea, on what a finished run has trained and drawn:
  python -m dd_jax.main --from=runs/mnist_flow --workdir=runs/idea --config.train.reverse_kl="(0.0,)"

Distilled Decoding, the whole method: tokenizer and teacher (or published ones), noise-code pairs (Alg. 1), the student
that needs one forward (Alg. 2), samples, scores, and a report. Stages:

  all       whatever is not done yet, in this order; an interrupted run goes on where it was
  pretrain  tokenizer, teacher and feature classifier, from the pictures of config.data
  pairs     Alg. 1: noise-code pairs, in shards
  train     Alg. 2: the student
  sample    pictures of config.sample.plans
  evaluate  results.jsonl: every plan and baseline on shared noises; scores/*.json: FID, where an Inception is named
  speed     speed.json: ms per image, compile times, share of the machine's matmul rate
  report    report.html
  config    print every setting with its value and what it is; --config.FIELD=VALUE changes it

--config.smoke=true tries a full-size config in minutes: random weights, one layer, a few pairs and steps.
SIGTERM saves and exits with status 75: the same command goes on. Everything else is in docs/.
"""

import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from dd_jax import overrides, settings, stored
from dd_jax.stages.workdir import STAGES
from dd_jax.system import files, processes, runtime
from dd_jax.system.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of settings, or the name of one that comes along (default: those of the run, or MNIST's)."
)
STAGE = flags.DEFINE_enum(
    "stage", None, ["all", *STAGES, "config"], "What to run (default: all; with --labels sample)."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written (default: runs/<config's name>).")
SOURCE = flags.DEFINE_string("from", None, "A finished run that lends tokenizer, teacher, classifier and pairs.")
LABELS = flags.DEFINE_string("labels", None, "Classes to draw, by name or number: short for --config.sample.labels.")
PROMPT = flags.DEFINE_string("prompt", None, "A caption to draw: short for --config.sample.prompt.")
PROMPTS = flags.DEFINE_string("prompts", None, "A file of captions (txt, csv, jsonl, parquet...), or tfds:NAME.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process; auto on TPU pods and SLURM.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are (not with --coordinator=auto).")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this one is, from 0.")
DEFAULT = "mnist_flow"
GROUPS = {
    "What to run": ("config", "stage", "workdir", "from"),
    "What to draw": ("labels", "prompt", "prompts"),
    "Several processes, which share --stage=pairs and train": ("coordinator", "processes", "process"),
}


def help_text() -> str:
    """What --help prints."""
    groups = [
        "\n".join([f"{title}:", *(f"  --{name:12}{flags.FLAGS[name].help}" for name in names)])
        for title, names in GROUPS.items()
    ]
    return "\n\n".join([str(__doc__).rstrip(), *groups])


def main(argv: list[str]) -> None:
    """Run the stages; a UserError becomes one line and exit status 1."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; flags begin with --, see --help")
    if STAGE.value == "config":
        files.show(settings.table(CONFIG.value))
        return
    try:
        if COORDINATOR.value is not None:
            processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        elif (PROCESSES.value or 1) > 1:
            raise UserError(f"--processes={PROCESSES.value} needs --coordinator=HOST:PORT")
        runtime.setup()
    except UserError as error:
        sys.exit(f"error: {error}")
    from dd_jax import pipeline
    from dd_jax.system import stopping

    config = CONFIG.value
    asked = {"labels": LABELS.value, "prompt": PROMPT.value, "prompts": PROMPTS.value}
    config.sample.update({name: value for name, value in asked.items() if value is not None})
    file, _, folder = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = Path(folder if Path(file) == stored.FILE else file).stem
    stage = STAGE.value or ("sample" if any(asked.values()) else "all")
    smoke = "_smoke" if config.smoke else ""
    try:
        pipeline.run(config, WORKDIR.value or f"runs/{name}{smoke}", stage, SOURCE.value)
    except UserError as error:
        processes.leave(f"error: {error}")
    except stopping.Stopped as told:
        print(f"{told}; run the same command to go on", file=sys.stderr)
        sys.exit(stopping.STATUS)
    except OSError as error:
        processes.leave(f"error: {error}; nothing that was finished is lost, run the same command again")
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command to go on")


def implied(words: list[str]) -> str:
    """The config of a command line that names none: that of the run it names, which is told, or MNIST's."""
    try:
        if (folder := stored.run_of(words)) is None:
            return DEFAULT
        stored.get_config(str(folder))
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"settings: those of {folder / 'config.json'}, since no --config is given", file=sys.stderr)
    return f"{stored.FILE}:{folder}"


def entry() -> None:
    """Parse flags and go."""
    if {*sys.argv[1:]} & {"--help", "-help", "-h"}:
        files.show(help_text())
        return
    sys.argv[1:] = ["--stage=config" if word == "--helpconfig" else word for word in sys.argv[1:]]
    # Not the flag's own default: absl would read that, overrides and all, while this file is imported.
    if not any(word.split("=")[0] in ("--config", "-config") for word in sys.argv[1:]):
        sys.argv.insert(1, f"--config={implied(sys.argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    settings.start(main, flags_parser=overrides.parse)


if __name__ == "__main__":
    entry()
