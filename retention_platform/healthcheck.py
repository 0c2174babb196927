"""`python -m retention_platform.healthcheck URL`: exit code 0 when a GET is answered with 2xx, else 1 and one line.

For the health checks of containers, whose image has no HTTP client. It imports little, since it runs every few seconds.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

#: A check that is not answered by then has failed; docker-compose.yml gives it 5 s.
SECONDS = 4.0


def trouble(url: str, seconds: float = SECONDS) -> str:
    """Why the service at ``url`` is not healthy, in one line; empty when it is. Asks no proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds):
            return ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"{url}: {error}"


def main() -> None:
    """Check the one URL given."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m retention_platform.healthcheck URL")
    if found := trouble(sys.argv[1]):
        raise SystemExit(found)


if __name__ == "__main__":
    main()
