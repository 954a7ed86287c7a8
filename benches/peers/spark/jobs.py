"""The jobs of `acequia-bench peers` that are Spark's.

    jobs.py range ROWS                  count up, keep the even numbers, drop them
    jobs.py triangle KIND ROWS          count up, add the triangle wave, drop the rows
    jobs.py values ROWS                 print the triangle wave of 0, 1, ... by each KIND

The last line is JSON. KIND: `pickle` and `arrow` are a function of one number, as the course has it, with what Spark offers
for the way to Python and back; `pandas` is the same formula on whole columns at once.
"""

import json
import os
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, pandas_udf, udf


def triangle(x, length=30, amplitude=10):
    alpha = amplitude / (length / 2)
    place, half = x % length, x % (length / 2)
    y = -amplitude / 2 + amplitude * (place == length / 2)
    return y + alpha * half * (place <= length / 2) + (amplitude - alpha * half) * (place > length / 2)


def function(kind):
    if kind == "pickle":
        return udf(triangle, "double", useArrow=False)
    if kind == "arrow":
        return udf(triangle, "double", useArrow=True)
    return pandas_udf(triangle, "double")


def job(spark, arguments, rows):
    numbers = spark.range(rows)
    if arguments[0] == "range":
        return numbers.filter(col("id") % 2 == 0)
    return numbers.select("id", function(arguments[1])("id").alias("tr"))


def run(spark, arguments, rows):
    """Seconds, and the rows that came to the end: what Spark itself has counted, for it would count the job's rows once more."""
    begin = time.monotonic()
    job(spark, arguments, rows).write.format("noop").mode("overwrite").save()
    seconds = time.monotonic() - begin
    # Counts come in beside the job.
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    store = spark._jsparkSession.sharedState().statusStore()
    execution = store.executionsList().last()
    values = store.executionMetrics(execution.executionId())
    counts = []
    for index in range(execution.metrics().size()):
        metric = execution.metrics().apply(index)
        value = values.get(metric.accumulatorId())
        if metric.name() == "number of output rows" and value.isDefined():
            counts.append(int(value.get().replace(",", "")))
    # A filter's and the end's are the smallest there are.
    return seconds, min(counts)


def main(arguments):
    begin = time.monotonic()
    # Else its workers are the system's Python, without these packages.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    rows = int(arguments[-1])
    if arguments[0] == "values":
        numbers = spark.range(rows)
        values = {
            kind: [row.tr for row in numbers.select(function(kind)("id").alias("tr")).collect()]
            for kind in ("pickle", "arrow", "pandas")
        }
        print(json.dumps(values))
        return
    # What Spark does once, at the first job, is its start.
    run(spark, arguments, 1000)
    start = time.monotonic() - begin
    seconds, out = run(spark, arguments, rows)
    print(json.dumps({"start": start, "seconds": seconds, "rows": out}))
    spark.stop()


main(sys.argv[1:])
