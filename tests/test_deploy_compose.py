"""docker-compose.yml, the Dockerfile and .env.example, as far as they can be judged without Docker."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from retention_platform import __version__
from retention_platform.healthcheck import trouble
from retention_platform.settings import PROJECT_ROOT, Settings

COMPOSE = PROJECT_ROOT / "docker-compose.yml"
EXAMPLE = PROJECT_ROOT / ".env.example"
DOCKERFILE = PROJECT_ROOT / "Dockerfile"
#: ${NAME}, ${NAME:-default} and ${NAME:?why}, as Compose reads them; $$ is a dollar sign.
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")
#: A size of Compose in bytes.
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
#: Runs to its end, and is waited for by that.
ONE_SHOT = {"migrate"}
SECRET = re.compile(r"PASSWORD|API_KEY|HMAC_KEY|SECRET|TOKEN|WEBHOOK")


def resolved(node: Any, values: dict[str, str]) -> Any:
    """The document with its variables in place, by the rules of Compose: in each text by itself, an empty one stays."""
    if isinstance(node, dict):
        return {key: resolved(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [resolved(value, values) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        found = values.get(match["name"], "")
        if found:
            return found
        assert match["kind"] != "?", f"{match['name']} has to be set"
        return match["text"] or ""

    return VARIABLE.sub(value, node)


def example() -> dict[str, tuple[str, bool]]:
    """The variables of .env.example: what is written there, and whether it has to be filled in."""
    found = re.findall(r"^(#?)(\w+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (value, not comment) for comment, name, value in found}


@cache
def compose() -> dict[str, Any]:
    """The file as Compose understands it, with every password set."""
    passwords = {name: "secret" for name, (_, required) in example().items() if required}
    document = resolved(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")), passwords)
    assert isinstance(document, dict)
    return document


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


def ours() -> dict[str, dict[str, Any]]:
    """The services of our own image."""
    return {name: service for name, service in services().items() if "build" in service}


def read_by_dagster() -> set[str]:
    """The variables that Dagster's configuration names."""
    configuration = "".join(path.read_text() for path in (PROJECT_ROOT / "deploy" / "dagster").iterdir())
    return set(re.findall(r"\{env: (\w+)\}", configuration))


def size(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def test_the_file_is_what_the_compose_specification_allows() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose(), json.loads(schema.read_text(encoding="utf-8")))


def test_a_variable_that_is_used_is_documented_with_its_default_and_the_other_way_round() -> None:
    used = {match["name"]: match for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8"))}
    documented = example()
    assert used.keys() == documented.keys()
    for name, match in used.items():
        value, required = documented[name]
        assert required == (match["kind"] == "?"), name
        assert value == ("" if required else match["text"]), name


def test_what_a_service_is_told_is_a_setting_that_our_code_knows() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for name, service in ours().items():
        told = set(service.get("environment", {}))
        assert told <= known | read_by_dagster(), name
    set_by_image = set(re.findall(r"(DAGSTER_\w+)=", DOCKERFILE.read_text()))
    for name in ("dagster-code", "dagster-daemon", "dagster-webserver"):
        assert read_by_dagster() <= services()[name]["environment"].keys() | set_by_image, name


def test_commands_that_are_run_by_hand_find_every_service_where_it_listens() -> None:
    """By hand is: with the variables of `migrate`."""
    told = services()["migrate"]["environment"]
    for kind, name in (("API", "api"), ("DASHBOARD", "dashboard"), ("DOCS", "docs"), ("INGEST_METRICS", "ingest")):
        assert told[f"{kind}_HOST"] == name
        assert told[f"{kind}_PORT"] == services()[name]["environment"][f"{kind}_PORT"]
    assert told["DAGSTER_HOST"] == "dagster-webserver"
    listens = services()["dagster-webserver"]["command"]
    assert f"--port={told['DAGSTER_PORT']}" in listens and f"--path-prefix={told['DAGSTER_PATH_PREFIX']}" in listens
    assert told["KAFKA_GROUP"] == services()["ingest"]["environment"]["KAFKA_GROUP"]


def test_the_issues_services_are_all_there() -> None:
    assert services().keys() == {
        *("redpanda", "redpanda-console", "clickhouse", "clickhouse-ui", "postgres", "migrate", "ingest", "producer"),
        *("dagster-webserver", "dagster-daemon", "dagster-code", "api", "api-replica", "dashboard", "docs", "nginx"),
    }
    behind = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert behind == {"producer": ["demo"], "nginx": ["lb"], "api-replica": ["lb"]}


def test_every_published_port_is_bound_to_loopback_and_taken_once() -> None:
    taken = []
    for name, service in services().items():
        for port in service.get("ports", ()):
            address, published, _ = port.split(":")
            assert address == "127.0.0.1", f"{name} publishes {port}"
            taken.append(published)
    assert len(taken) == len(set(taken))
    assert {"8501", "8000", "3000", "8082", "8123", "8080", "8081"} <= set(taken)


def test_memory_is_limited_to_eight_gigabytes_in_sum_with_every_profile() -> None:
    limits = {name: size(service["mem_limit"]) for name, service in services().items()}
    replicas = {name: int(service.get("deploy", {}).get("replicas", 1)) for name, service in services().items()}
    assert sum(limit * replicas[name] for name, limit in limits.items()) <= 8 * 2**30
    broker = next(word for word in services()["redpanda"]["command"] if word.startswith("--memory="))
    assert size(broker.removeprefix("--memory=").lower()) < limits["redpanda"]


def test_every_service_is_checked_restarted_and_its_log_bounded() -> None:
    for name, service in services().items():
        assert service["logging"]["options"]["max-size"], name
        if name in ONE_SHOT:
            assert service["restart"].startswith("on-failure")
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_a_service_waits_for_others_to_be_healthy_or_done() -> None:
    for name, service in services().items():
        for other, wanted in service.get("depends_on", {}).items():
            ends = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wanted == {"condition": ends}, f"{name} on {other}"
    assert set(services()["migrate"]["depends_on"]) == {"clickhouse", "redpanda"}
    for name in ("ingest", "api", "dagster-code", "producer"):
        assert "migrate" in services()[name]["depends_on"], name


def test_images_are_pinned_and_the_dockerfile_is_of_this_version() -> None:
    for name, service in services().items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"
        if name in ours():
            assert service["image"] == f"retention:{__version__}"
    default = re.search(r"^ARG BASE_IMAGE=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert default and default[1] == example()["BASE_IMAGE"][0]
    assert re.search(r"^USER (?!0|root)", DOCKERFILE.read_text(), re.MULTILINE)


def test_our_services_have_no_rights_and_write_in_the_state_folder_only() -> None:
    for name, service in ours().items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["volumes"] == ["state:/var/lib/retention"], name


def test_named_volumes_and_mounted_files_exist() -> None:
    for name, service in services().items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if not source.startswith("./"):
                assert source in compose()["volumes"], f"{name}: {volume}"
            elif source != example()["HTPASSWD_FILE"][0]:
                assert (PROJECT_ROOT / source).is_file(), f"{name}: {volume}"


def test_no_secret_is_in_a_file() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    for name, value in re.findall(r"^\s+(\w+): (.+)$", text, re.MULTILINE):
        if SECRET.search(name):
            assert VARIABLE.fullmatch(value), f"{name}: {value}"
    for name, match in ((match["name"], match) for match in VARIABLE.finditer(text)):
        if SECRET.search(name):
            assert match["kind"] == "?" or match["text"] == "", name
    for name, (value, _) in example().items():
        assert not (SECRET.search(name) and value), name
    ignored = (PROJECT_ROOT / ".gitignore").read_text().splitlines()
    assert {".env", example()["HTPASSWD_FILE"][0].removeprefix("./")} <= set(ignored)


def command_lines() -> list[tuple[str, ...]]:
    """The programs that our services and their health checks start, without their options."""
    found = set[tuple[str, ...]]()
    for service in ours().values():
        checked = service.get("healthcheck", {}).get("test", ["CMD-SHELL"])
        for words in (service["command"], checked[1:] if checked[0] == "CMD" else []):
            program = [word for word in words if not word.startswith(("-", "/", "http")) or word == "-m"]
            found.add(tuple(words[:3]) if program[:2] == ["python", "-m"] else tuple(words[:2]))
    return sorted(found - {()})


def test_every_command_is_a_program_of_ours_or_dagsters() -> None:
    assert set(command_lines()) == {
        *(("retention", word) for word in ("migrate", "ingest", "produce")),
        *(("python", "-m", f"retention_platform.{part}") for part in ("api", "dashboard", "docs_site", "healthcheck")),
        *(("python", "-m", module) for module in ("dagster", "dagster_webserver", "dagster._daemon")),
        *(("dagster", "api"), ("dagster-daemon", "liveness-check")),
    }
    for words in command_lines():
        if words[:2] == ("python", "-m"):
            assert importlib.util.find_spec(words[2]), words
        else:
            assert (Path(sys.executable).parent / words[0]).exists(), words


def test_every_program_knows_the_options_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our own modules take none; each of the others prints what it takes, here in this process: starting costs 4 s."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    for service in ours().values():
        for command in (service["command"], service.get("healthcheck", {}).get("test", ["CMD"])[1:]):
            options = {word.split("=")[0] for word in command if word.startswith("--")}
            if not options:
                continue
            module = command[2] if command[0] == "python" else None
            words = command[3:] if module else command[1:]
            words = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
            monkeypatch.setattr(sys, "argv", [command[0], *words, "--help"])
            with pytest.raises(SystemExit) as ended:
                if module:
                    runpy.run_module(module, run_name="__main__")
                else:
                    (program,) = entry_points(group="console_scripts", name=command[0])
                    program.load()()
            shown = capsys.readouterr().out
            assert ended.value.code == 0, command
            assert all(re.search(rf"{option}\b", shown) for option in options), (command, shown)


def test_the_health_check_tells_an_answer_from_none(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("fine")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port
        base = f"http://127.0.0.1:{port[1]}"
        assert trouble(f"{base}/here") == ""
        assert "404" in trouble(f"{base}/gone")
    finally:
        server.terminate()
        server.wait()
    assert trouble(f"{base}/here")
    assert trouble("not a URL")
