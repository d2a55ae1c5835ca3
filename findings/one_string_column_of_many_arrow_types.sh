#!/usr/bin/env bash
# The guess: a column of text in a parquet or Feather file is `string`, so that pyarrow.types.is_string finds it, and
# to_pylist() gives its rows, the bad ones of which can be skipped.
#
# What happens: the type is the writer's. One polars frame comes back as large_string from its parquet file and as
# string_view from its IPC file; its Categorical and Enum columns, and pandas' category, are dictionaries in both;
# plain pandas 3 strings are large_string. is_string says no to every one of them. Nor do readers validate UTF-8:
# a single bad string makes to_pylist() of the whole batch raise UnicodeDecodeError, while row by row only that one does.
#
# Versions: pyarrow 26.0.1, polars 2.1.0, pandas 3.1.1.
# Source: parquet's ARROW:schema metadata (pyarrow); polars.DataFrame.write_parquet and write_ipc (compat_level).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1 polars==2.1.0 pandas==3.1.1
cd "$folder"

cat > look.py <<'PY'
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

print("pyarrow", pa.__version__, "polars", pl.__version__, "pandas", pd.__version__)
text = ["a fox", "a dog"]
frame = pl.DataFrame(
    {"string": text, "categorical": pl.Series(text, dtype=pl.Categorical), "enum": pl.Series(text, dtype=pl.Enum(text))}
)
frame.write_parquet("polars.parquet")
frame.write_ipc("polars.arrow")
pd.DataFrame({"string": text, "category": pd.Categorical(text)}).to_parquet("pandas.parquet")
found = {
    "polars.parquet": pq.read_schema("polars.parquet"),
    "polars.arrow": pa.ipc.open_file("polars.arrow").schema,
    "pandas.parquet": pq.read_schema("pandas.parquet"),
}
for name, schema in found.items():
    for field in schema:
        print(f"{name:15} {field.name:12} {field.type}")
        assert not pa.types.is_string(field.type), "changed: a plain string"
assert str(found["polars.parquet"].field("string").type) == "large_string"
assert str(found["polars.arrow"].field("string").type) == "string_view"
assert pa.types.is_dictionary(found["polars.arrow"].field("categorical").type)
assert pa.types.is_dictionary(found["pandas.parquet"].field("category").type)

pq.write_table(pa.table({"caption": pa.array([b"a fox", b"\xff", b"a dog"]).view(pa.string())}), "bad.parquet")
column = pq.read_table("bad.parquet")["caption"]
try:
    column.to_pylist()
    raise SystemExit("changed: to_pylist() passes over a string that is not UTF-8")
except UnicodeDecodeError as error:
    print("to_pylist():", error)
rows = []
for one in column:
    try:
        rows.append(one.as_py())
    except UnicodeDecodeError:
        rows.append(None)
print("row by row:", rows)
assert rows == ["a fox", None, "a dog"]
PY
venv/bin/python look.py
