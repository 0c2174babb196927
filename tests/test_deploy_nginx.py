"""deploy/nginx, run by a real nginx before real processes of the API and the dashboard: who gets in, who answers."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from retention_platform.embedded.up import free_port
from retention_platform.settings import PROJECT_ROOT

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")

DEPLOY = PROJECT_ROOT / "deploy" / "nginx"
#: Seconds to wait for anything; nothing takes that long.
PATIENCE = 60.0
USER, PASSWORD = "somebody", "a secret"


def eventually(what: str, done: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked: stands for Dagster and the documentation, which are not looked at here."""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def echoing() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def nginx(folder: Path, name: str, listens: int, places: dict[str, list[int]]) -> Iterator[Path]:
    """nginx with the shipped configuration, on another port and before these ports; yields its access log.

    What is replaced is what has to be: the port, where the services are, and files outside of the folder.
    """
    shutil.copy(DEPLOY / name, folder / name)
    text, log = (folder / name).read_text(), folder / "access.log"
    text = re.sub(r"listen \d+;", f"listen 127.0.0.1:{listens};", text)
    text = text.replace("/tmp/nginx.pid", f"{folder}/nginx.pid").replace("/dev/stdout", str(log))
    upstreams = "".join(
        f"upstream {service} {{ zone {service} 64k; least_conn; keepalive 4; "
        + "".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=5s; " for port in ports)
        + "}\n"
        for service, ports in places.items()
    )
    (folder / "upstreams.conf").write_text(upstreams)
    # In the container names are asked of Docker, which an older nginx cannot do while it runs.
    text = re.sub(r"resolver [^;]+;", "", text)
    text = re.sub(r"upstream clickhouse \{.*?\n    \}", "include upstreams.conf;", text, flags=re.DOTALL)
    (folder / name).write_text(text)
    assert NGINX
    command = [NGINX, "-p", str(folder), "-c", str(folder / name), "-g", "daemon off;"]
    if os.getuid() == 0:
        command[-1] += " user root;"  # the test's folder is its owner's alone
    process = subprocess.Popen(command, stderr=(folder / "nginx.log").open("wb"))
    try:
        eventually("nginx to answer", lambda: answers(f"http://127.0.0.1:{listens}/nginx-health"))
        yield log
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Proxied:
    """The stack behind nginx."""

    url: str
    log: Path
    apis: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def get(self, path: str, **options: object) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.get(f"{self.url}{path}", auth=(USER, PASSWORD), **options)  # type: ignore[arg-type]

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def service(module: str, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RETENTION_HOME": str(folder), **variables}
    with (folder / f"{module}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"retention_platform.{module}"], env=environment, stdout=log, stderr=log
        )


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    apis, dashboard_port, port = [free_port(), free_port(), free_port()], free_port(), free_port()
    # As docs/deploy.md says how to make it.
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    ).stdout
    (folder / "htpasswd").write_text(f"{USER}:{hashed}")
    with contextlib.ExitStack() as stack:
        dagster, docs = stack.enter_context(echoing()), stack.enter_context(echoing())
        # No ClickHouse: what the API says of itself is enough here.
        away = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(free_port())}
        processes = {api: service("api", folder, API_PORT=str(api), API_ROOT_PATH="/api", **away) for api in apis}
        processes[dashboard_port] = service("dashboard", folder, DASHBOARD_PORT=str(dashboard_port))
        try:
            for api in apis:
                eventually("the API", lambda api=api: answers(f"http://127.0.0.1:{api}/"))
            eventually("the dashboard", lambda: answers(f"http://127.0.0.1:{dashboard_port}/_stcore/health"))
            places = {"api": apis, "dashboard": [dashboard_port], "dagster": [dagster], "docs": [docs]}
            log = stack.enter_context(nginx(folder, "nginx.conf", port, places))
            yield Proxied(f"http://127.0.0.1:{port}", log, {api: processes[api] for api in apis})
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def test_nothing_but_the_proxys_own_health_is_shown_without_the_password(proxied: Proxied) -> None:
    paths = ["/", "/_stcore/health", "/api/", "/api/openapi.json", "/dagster/graphql", "/docs/"]
    for path in paths:
        for wrong in (None, (USER, "another"), ("nobody", PASSWORD)):
            answer = httpx.get(f"{proxied.url}{path}", auth=wrong, trust_env=False)
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic"), path
        assert proxied.get(path).status_code == 200, path
    assert httpx.get(f"{proxied.url}/nginx-health", trust_env=False).text == "ok\n"


def test_services_get_their_own_paths_no_password_and_the_true_address(proxied: Proxied) -> None:
    claimed = {"X-Forwarded-For": "203.0.113.9"}
    dagster = proxied.get("/dagster/runs/1?x=%2F", headers=claimed).json()
    assert dagster["path"] == "/dagster/runs/1?x=%2F"
    assert proxied.get("/docs/index.html", headers=claimed).json()["path"] == "/index.html"
    assert "Authorization" not in dagster["headers"]
    assert dagster["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert dagster["headers"]["Host"] == proxied.url.removeprefix("http://")
    moved = proxied.get("/api")
    assert moved.status_code == 301 and moved.headers["Location"] == f"{proxied.url}/api/"


def raw(proxied: Proxied, request: bytes) -> int:
    """The status of a request sent as it is, which no client library would send."""
    host, port = proxied.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "path",
    [
        "/nginx-health/../dagster/graphql",
        "/nginx-health/..%2fdagster/graphql",
        "/nginx-health%2f..%2fdagster/graphql",
        "/nginx-health/%2e%2e/dagster/graphql",
        "/./dagster/graphql",
        "//dagster/graphql",
        "/api/..%2fdagster/graphql",
        "/docs/..;/dagster/graphql",
        "/docs/../../../../etc/passwd",
        "/%64agster/graphql",
        "/nginx-health%00/dagster",
    ],
)
def test_no_path_leads_past_the_password(proxied: Proxied, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    before = len(proxied.lines())
    assert raw(proxied, f"{request}\r\n".encode()) in (400, 401)
    claimed = f"{request}X-Original-URL: /nginx-health\r\nX-Rewrite-URL: /nginx-health\r\nRemote-User: admin\r\n"
    assert raw(proxied, f"{claimed}\r\n".encode()) in (400, 401)
    eventually("the log", lambda: len(proxied.lines()) >= before + 2)
    assert not any(line["upstream"] for line in proxied.lines()[before:]), "a service was asked"


def test_what_is_too_long_or_reads_in_two_ways_is_refused_before_it_reaches_a_service(proxied: Proxied) -> None:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    known = f"Host: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n"
    before = len(proxied.lines())
    for path, size in (("/", 2 << 20), ("/api/videos", 2 << 20), ("/docs/", 2 << 20), ("/dagster/graphql", 11 << 20)):
        assert raw(proxied, f"POST {path} HTTP/1.1\r\n{known}Content-Length: {size}\r\n\r\n".encode()) == 413, path
    assert raw(proxied, f"GET /{'a' * 40_000} HTTP/1.1\r\n{known}\r\n".encode()) == 414
    assert raw(proxied, f"GET /api/ HTTP/1.1\r\n{known}X-Long: {'a' * 40_000}\r\n\r\n".encode()) == 400
    both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/ HTTP/1.1\r\n\r\n"
    assert raw(proxied, f"POST /dagster/graphql HTTP/1.1\r\n{known}{both}".encode()) == 400
    eventually("the log", lambda: len(proxied.lines()) >= before + 7)
    assert not any(line["upstream"] for line in proxied.lines()[before:]), "a service was asked"
    assert proxied.get("/dagster/graphql").status_code == 200


def test_the_apis_documentation_finds_its_files_behind_the_proxy_and_without(proxied: Proxied) -> None:
    for base, path in ((proxied.url, "/api/docs"), (f"http://127.0.0.1:{next(iter(proxied.apis))}", "/docs")):
        with httpx.Client(base_url=base, auth=(USER, PASSWORD), trust_env=False) as client:
            page = client.get(path)
            assert page.status_code == 200
            named = set(re.findall(r"[\"'](/[\w./-]+\.(?:js|css|json))[\"']", page.text))
            assert any(name.endswith("openapi.json") for name in named) and len(named) >= 3
            for name in named:
                assert client.get(name).status_code == 200, f"{base}{name}"
            assert client.get("/api/openapi.json").json()["servers"] == [{"url": "/api"}]


def test_keys_of_the_api_hold_behind_the_proxys_path_too(tmp_path: Path) -> None:
    port = free_port()
    process = service("api", tmp_path, API_PORT=str(port), API_ROOT_PATH="/api", API_KEYS="k1")
    try:
        base = f"http://127.0.0.1:{port}"
        eventually("the API", lambda: answers(f"{base}/"))
        for prefix in ("", "/api"):
            assert httpx.get(f"{base}{prefix}/openapi.json", trust_env=False).status_code == 200
            for path in ("/videos", "/api/videos", "/metrics"):
                assert httpx.get(f"{base}{prefix}{path}", trust_env=False).status_code == 401, f"{prefix}{path}"
            known = httpx.get(f"{base}{prefix}/metrics", headers={"X-API-Key": "k1"}, trust_env=False)
            assert known.status_code == 200
    finally:
        process.kill()
        process.wait()


def test_requests_are_shared_by_all_replicas(proxied: Proxied) -> None:
    before = len(proxied.lines())
    for _ in range(30):
        assert proxied.get("/api/").status_code == 200
    eventually("the log", lambda: len(proxied.lines()) >= before + 30)
    by = [line["upstream"] for line in proxied.lines()[before:]]
    counts = {port: by.count(f"127.0.0.1:{port}") for port in proxied.apis}
    assert sum(counts.values()) == 30
    assert all(count >= 5 for count in counts.values()), counts


def test_the_dashboards_websocket_passes_in_both_directions(proxied: Proxied) -> None:
    address = proxied.url.replace("http://", "ws://") + "/_stcore/stream"
    known = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    with pytest.raises(InvalidStatus) as refused:
        connect(address, proxy=None)
    assert refused.value.response.status_code == 401
    with connect(address, additional_headers=known, proxy=None, open_timeout=PATIENCE) as socket:
        wish = BackMsg()
        wish.rerun_script.query_string = ""
        socket.send(wish.SerializeToString())
        answer = ForwardMsg()
        answer.ParseFromString(bytes(socket.recv(timeout=PATIENCE)))  # type: ignore[arg-type]
        assert answer.WhichOneof("type")
    # From another page's origin a browser's socket would carry this person's password.
    with pytest.raises(InvalidStatus):
        connect(address, additional_headers=known, origin="http://elsewhere.example", proxy=None)  # type: ignore[arg-type]


def test_replicas_that_die_are_passed_over_and_taken_back(proxied: Proxied, tmp_path: Path) -> None:
    first, second, _ = proxied.apis
    stop, failed, asked = threading.Event(), [], []

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30, auth=(USER, PASSWORD)) as client:
            while not stop.is_set():
                answer = client.get(f"{proxied.url}/api/")
                asked.append(answer.status_code)
                if answer.status_code != 200:
                    failed.append(answer.status_code)

    def served(port: int, since: int) -> bool:
        return any(line["upstream"] == f"127.0.0.1:{port}" for line in proxied.lines()[since:])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually("requests", lambda: len(asked) > 50)
        for port in (first, second):
            proxied.apis[port].send_signal(signal.SIGKILL)
            proxied.apis[port].wait()
        begun = len(asked)
        eventually("requests while two are gone", lambda: len(asked) > begun + 100)
        since = len(proxied.lines())
        proxied.apis[first] = service("api", tmp_path, API_PORT=str(first), API_ROOT_PATH="/api")
        eventually("the replica that came back", lambda: served(first, since))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        proxied.apis[first].kill()
        proxied.apis[first].wait()
    assert not failed, f"{len(failed)} of {len(asked)} requests failed: {set(failed)}"


def test_clickhouses_page_and_queries_pass_and_nothing_else_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    with echoing() as server, nginx(tmp_path, "clickhouse-ui.conf", port, {"clickhouse": [server]}):
        base = f"http://127.0.0.1:{port}"
        page = httpx.get(base, trust_env=False)
        assert page.status_code == 302 and page.headers["Location"] == f"{base}/play"
        assert httpx.get(f"{base}/play", trust_env=False).json()["path"] == "/play"
        asked = httpx.post(f"{base}/?user=bi", content="select 1", headers={"X-ClickHouse-Key": "k"}, trust_env=False)
        assert asked.json()["path"] == "/?user=bi" and asked.json()["headers"]["X-ClickHouse-Key"] == "k"
        for path in ("/dashboard", "/metrics", "/replicas_status", "/play/..%2fdashboard"):
            assert httpx.get(f"{base}{path}", trust_env=False).status_code == 404, path
