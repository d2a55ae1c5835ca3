"""A run's results as one page: report.html, with its tables, charts and pictures inside.

`build` gathers what the stages left, `page` and `tables` lay it out, `svg` draws. Numbers come in as plain rows.
May import `training` (its curves), `data` and below. Start with `build`.
"""
