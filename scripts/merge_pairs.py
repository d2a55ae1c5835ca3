"""python -m scripts.merge_pairs OUT FOLDER FOLDER ...: join finished pair sets of disjoint ids into one.

Runs on several machines take different ids (--config.pairs.first=600000) and otherwise the same settings; what differs
in anything else, or overlaps, is refused. OUT may be one of the sets. A run whose --workdir has OUT as its folder
`pairs` then takes it as its own: --stage=pairs checks every shard, and makes those that its config.pairs.first and
.count want besides.
"""

import argparse
import sys
from pathlib import Path

from dd_jax.data import pairset
from dd_jax.system import files
from dd_jax.system.errors import UserError


def main(argv: list[str]) -> None:
    """Join, and say what there is."""
    parser = argparse.ArgumentParser("python -m scripts.merge_pairs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    args = parser.parse_args(argv)
    try:
        files.spelled_in(args)
        found = pairset.merge(args.out, args.folders)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {len(found)} pairs in {len(found.shards)} shards")


if __name__ == "__main__":
    main(sys.argv[1:])
