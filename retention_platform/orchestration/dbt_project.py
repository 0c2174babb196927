"""Where the dbt project is, and its manifest: made by `dbt parse` when it is missing or the project changed.

dagster-dbt prepares manifests under `dagster dev` only; the webserver, the daemon, run workers, tests and images need
one as well. It has a target folder of its own, so that dbt commands run by hand never change it under Dagster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from retention_platform.errors import RetentionError
from retention_platform.settings import DBT_PROJECT_DIR

#: Dagster's own target folder, inside dbt's.
TARGET = Path("target") / "dagster"
MANIFEST = "manifest.json"
#: The same manifest as dbt itself reads it, some hundred times faster than parsing the project again.
PARSED = "partial_parse.msgpack"
_FINGERPRINT = "fingerprint"

#: Folders in a dbt project that dbt writes.
_MADE_BY_DBT = {"target", "logs", "dbt_packages"}


def prepare_manifest(project_dir: Path = DBT_PROJECT_DIR) -> Path:
    """Make sure that a manifest of the project as it is now exists; the manifest's path.

    Any number of processes may call this at once: one parses, the others wait for it. Raises RetentionError
    when the project cannot be parsed, or the target folder not be written.
    """
    folder = project_dir / TARGET
    wanted = fingerprint(project_dir)
    if not _is_current(folder, wanted):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                if not _is_current(folder, wanted):
                    _parse(project_dir, folder)
                    (folder / _FINGERPRINT).write_text(wanted, encoding="ascii")
        except OSError as error:
            raise RetentionError(
                f"dbt's manifest is missing or stale and {folder} cannot be written ({error.strerror}): "
                "make the folder writable, or prepare the manifest when building the image"
            ) from None
    return folder / MANIFEST


def fingerprint(project_dir: Path) -> str:
    """SHA-256 over dbt's version and the project's files, names and contents.

    Not over modification times, which git and image builds set as they like.
    """
    digest = hashlib.sha256(f"{version('dbt-core')} {version('dbt-clickhouse')}\n".encode())
    for path in sorted(_sources(project_dir)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(project_dir).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(project_dir: Path) -> Iterator[Path]:
    for path in project_dir.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name not in _MADE_BY_DBT:
                yield from (child for child in path.rglob("*") if child.is_file())
        elif path.suffix in (".yml", ".yaml"):
            yield path


def _is_current(folder: Path, wanted: str) -> bool:
    try:
        found = (folder / _FINGERPRINT).read_text(encoding="ascii")
    except OSError:
        return False
    return found == wanted and (folder / MANIFEST).exists() and (folder / PARSED).exists()


def _parse(project_dir: Path, folder: Path) -> None:
    """Parse into a temporary folder, then move the two files over the old ones."""
    (folder / _FINGERPRINT).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="parsing-") as made:
        command = [sys.executable, "-m", "dbt.cli.main", "--no-use-colors", "parse"]
        command += ["--project-dir", str(project_dir), "--profiles-dir", str(project_dir)]
        command += ["--target-path", made, "--log-path", made]
        done = subprocess.run(
            command,
            env={**os.environ, "DO_NOT_TRACK": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RetentionError(f"the dbt project in {project_dir} cannot be parsed: {_reason(done.stdout)}")
        for name in (PARSED, MANIFEST):
            shutil.move(Path(made) / name, folder / name)


def _reason(output: str) -> str:
    """What dbt complained about, in one line: from its first line with "error" on."""
    lines = [line.split("  ", 1)[-1].strip() for line in output.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if "error" in line.lower()), 0)
    return " ".join(lines[first : first + 4])[:500] or "dbt said nothing"
