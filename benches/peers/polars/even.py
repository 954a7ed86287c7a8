"""even.py IN OUT: the JSON lines whose `value` is even."""

import sys

import polars

(
    polars.scan_ndjson(sys.argv[1])
    .filter(polars.col("value") % 2 == 0)
    .sink_ndjson(sys.argv[2])
)
