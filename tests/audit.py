"""`make audit`: are there known vulnerabilities in the versions that are pinned? Asks through pip-audit.

A version that nobody could tell of is not taken for a good one: then there is no answer, and that is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIP_AUDIT = "pip-audit==2.10.1"


def judge(dependencies: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code and what to print: 0 nothing known, 1 something found, 2 some could not be asked about."""
    found = [
        f"{dependency['name']} {dependency['version']}: {one['id']}, mended in "
        f"{', '.join(one.get('fix_versions') or ()) or 'no version yet'}"
        for dependency in dependencies
        for one in dependency.get("vulns", ())
    ]
    skipped = [str(dependency["name"]) for dependency in dependencies if "skip_reason" in dependency]
    asked = len(dependencies) - len(skipped)
    if not asked:
        return 2, ["error: not audited: this package index tells nothing of vulnerabilities; ask one that does"]
    if skipped:
        return (1 if found else 2), [*found, f"error: not audited, the index does not tell: {', '.join(skipped)}"]
    return (1, found) if found else (0, [f"nothing known against {asked} pinned versions"])


def main() -> int:
    """Audit what is installed, and what develops it."""
    command = [str(Path(sys.executable).with_name("uv")), "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit"]
    command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    for name in ("requirements.lock", "requirements-dev.lock"):
        command += ["--requirement", str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"error: not audited: {last[:200]}", file=sys.stderr)
        return 2
    code, lines = judge(dependencies)
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
