"""python -m scripts.merge_pairs OUT FOLDER FOLDER ...: join finished pair sets of disjoint ids into one.

Runs on several machines take different ids (--config.pairs.first=600000) and otherwise the same settings; what differs
in anything else, or overlaps, is refused. OUT may be one of the sets. A run whose --workdir has OUT as its folder
`pairs` then takes it as its own: --stage=pairs checks every shard, and makes those that its config.pairs.first and
.count want besides.
"""

import sys

from dd_jax.data import pairset
from dd_jax.system import files
from dd_jax.system.errors import UserError


def main(argv: list[str]) -> None:
    """Join, and say what there is."""
    if len(argv) < 2 or any(word.startswith("-") for word in argv):
        sys.exit(__doc__)
    try:
        out, *folders = map(files.local, argv)
        found = pairset.merge(out, folders)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{out}: {len(found)} pairs in {len(found.shards)} shards")


if __name__ == "__main__":
    main(sys.argv[1:])
