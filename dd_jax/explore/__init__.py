"""The explorer: `python -m dd_jax.explore FOLDER` opens a model in the browser, to play with.

`studio` draws with a `Pipeline` and knows no browser, `shown` makes pages and files of what was drawn, `page` lays it
out with gradio, the only file that imports it. May import everything. Start with `studio`.
"""
