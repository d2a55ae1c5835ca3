"""The explorer: `python -m dd_jax.explore FOLDER` opens a model in the browser, to play with.

`studio` draws with a `Pipeline` and knows no browser, `scene` is what is drawn, `shown` makes tables and files of it,
`uploads` reads what is brought. gradio is for the others: `page`, its tabs `grid`, `walks`, `canvas`, and `controls`.
May import everything. Start with `studio`.
"""
