"""python -m dd_jax.publish WORKDIR owner/name [--private] [--dry-run] [--license mit] [--with-ported]

Uploads what a run has trained to the Hugging Face Hub, with a model card: `dd_jax.load("hf://owner/name")` draws with
it. --dry-run shows the files and the card, and asks for no network. What else is told: docs/hub.md.

    python -m dd_jax.publish runs/mnist_flow owner/name --dry-run
"""

import argparse
import sys
import tempfile
from pathlib import Path

from dd_jax.stages import upload
from dd_jax.system import files, hub
from dd_jax.system.errors import UserError


def publish(
    workdir: Path, repo: str, private: bool = False, dry_run: bool = False, licence: str = "", with_ported: bool = False
) -> str:
    """Upload a run -> the address of its page; `dry_run`: what would be uploaded, in words.

    UserError for a run without trained weights, a name that cannot be, or a Hub that does not take it.
    """
    address = hub.Address.of(f"hf://{repo}")
    if (address.revision, address.folder) != (None, ""):
        raise UserError(f"{repo}: name a repository alone, owner/name")
    with tempfile.TemporaryDirectory() as folder:
        found = upload.arrange(workdir, repo, Path(folder), licence, with_ported)
        if dry_run:
            lines = [f"{path.stat().st_size:>13,}  {path.relative_to(folder)}" for path in found]
            return "\n".join([*lines, "", (Path(folder) / "README.md").read_text()])
        return hub.upload(Path(folder), repo, private, f"Upload {workdir.name}")


def main() -> None:
    parser = argparse.ArgumentParser("python -m dd_jax.publish", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("workdir", type=Path, help="a run")
    parser.add_argument("repo", metavar="owner/name", help="of the repository, which is made if there is none")
    parser.add_argument("--private", action="store_true", help="nobody else sees it")
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded")
    parser.add_argument("--license", default="", help="of what was trained, as the Hub spells it: mit, cc-by-4.0, ...")
    parser.add_argument("--with-ported", action="store_true", help="copy ported parts too, which others published")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        print(publish(args.workdir, args.repo, args.private, args.dry_run, args.license, args.with_ported))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
