"""What `--stage` runs, one module a stage, and the work directory that they share.

`run` has their order and what each needs, `parts` where parameters come from, `workdir` what is done already.
May import everything but the files of the package itself. Start with `run`.
"""
