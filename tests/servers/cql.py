#!/usr/bin/env python3
"""Ask a Cassandra node, with a client that has nothing to do with Acequia's connector.

    cassandra.sh cql HOST:PORT [--user USER --password PASSWORD] [--ca FILE] [--types] STATEMENT...
    cassandra.sh cql HOST:PORT ... --each STATEMENT   <rows of values, as JSON arrays, one a line

Prints one JSON object for each row that the statements return. Numbers that JSON can't hold (decimal, NaN, infinities) and
uuid, inet, date, time and duration are strings, a timestamp is one too (UTC, milliseconds), a blob is 0x and hex, a set is a
sorted array, a map with keys that are no text an array of pairs. --types prints the CQL type of each column first. --each
runs a statement with ? once for every line, many at a time.
"""

import argparse
import datetime
import json
import math
import ssl
import sys

import cassandra
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import dict_factory

# Seconds: to count a million rows takes its time.
PATIENCE = 300


def plain(value):
    """A value of the driver as JSON has it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray)):
        return "0x" + bytes(value).hex()
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if hasattr(value, "_asdict"):
        return {name: plain(field) for name, field in value._asdict().items()}
    if hasattr(value, "items"):
        pairs = [(plain(key), plain(item)) for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return dict(sorted(pairs))
        return sorted(([key, item] for key, item in pairs), key=json.dumps)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "__iter__") and not hasattr(value, "months"):
        items = [plain(item) for item in value]
        return sorted(items, key=lambda item: (str(type(item)), item if not isinstance(item, (list, dict)) else json.dumps(item)))
    return str(value)


def patiently(session, statement):
    """Run a statement; a read that the node gives up, as it does on a busy machine, is made again."""
    for _ in range(4):
        try:
            return session.execute(statement)
        except cassandra.ReadTimeout:
            pass
    return session.execute(statement)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--ca")
    parser.add_argument("--types", action="store_true")
    parser.add_argument("--each")
    parser.add_argument("statements", nargs="*")
    options = parser.parse_intermixed_args()
    host, _, port = options.address.rpartition(":")

    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([host]), request_timeout=PATIENCE, row_factory=dict_factory
    )
    more = {}
    if options.user is not None:
        more["auth_provider"] = PlainTextAuthProvider(options.user, options.password)
    if options.ca is not None:
        more["ssl_context"] = ssl.create_default_context(cafile=options.ca)
        more["ssl_options"] = {"server_hostname": host}
    cluster = Cluster(
        [host], port=int(port), execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=30, **more
    )
    session = cluster.connect()
    out = sys.stdout
    for statement in options.statements:
        result = patiently(session, statement)
        if options.types and result.column_names is not None:
            kinds = (kind.cql_parameterized_type() for kind in result.column_types)
            print(json.dumps(dict(zip(result.column_names, kinds))), file=out)
        for row in result:
            out.write(json.dumps({name: plain(value) for name, value in row.items()}, ensure_ascii=False) + "\n")
    if options.each is not None:
        prepared = session.prepare(options.each)
        rows = (tuple(json.loads(line)) for line in sys.stdin)
        for _ in execute_concurrent_with_args(session, prepared, rows, concurrency=128, results_generator=True):
            pass
    out.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main()
