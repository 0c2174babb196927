"""Asking the Dagster webserver over GraphQL. Knows no query: those are with what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from retention_platform.errors import ServiceError

SECONDS = 10.0


def connection(base_url: str) -> httpx.Client:
    """A client of the webserver at ``base_url``; proxies of the environment are not for it."""
    return httpx.Client(base_url=base_url, timeout=SECONDS, trust_env=False)


def ask(client: httpx.Client, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """A GraphQL query's data. Raises ServiceError."""
    try:
        answer = client.post("/graphql", json={"query": query, "variables": dict(variables)})
        value = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            f"Dagster at {client.base_url} does not answer ({type(error).__name__}): start it with `retention up`"
        ) from None
    if value.get("errors"):
        raise ServiceError(f"Dagster at {client.base_url}: {value['errors'][0]['message'][:400]}")
    data: dict[str, Any] = value["data"]
    return data
