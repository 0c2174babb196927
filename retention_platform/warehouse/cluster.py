"""The schema's SQL for a cluster of replicas, from the same SQL that makes it on one server. Pure text.

Databases become Replicated ones, which repeat every later statement about their tables on all replicas by themselves,
and tables that store something become replicated. Every replica holds everything: there are no shards.
"""

from __future__ import annotations

import re

_DATABASE = re.compile(r"^create database if not exists (?P<name>\w+)$", re.IGNORECASE)
_ENGINE = re.compile(r"^(?P<before>engine = )(?P<engine>\w*MergeTree)\b", re.IGNORECASE | re.MULTILINE)


def for_cluster(statement: str, cluster: str) -> str:
    """A statement of the schema as the replicas of ``cluster`` need it; unchanged when that is empty.

    The databases' place in Keeper is named after them, so that a replica that joins later finds them there.
    """
    if not cluster:
        return statement
    if database := _DATABASE.match(statement.strip()):
        name = database["name"]
        return (
            f"create database if not exists {name} on cluster `{cluster}` "
            f"engine = Replicated('/clickhouse/retention/{name}', '{{shard}}', '{{replica}}')"
        )
    return _ENGINE.sub(r"\g<before>Replicated\g<engine>", statement)
