"""What a language model is told: the versioned prompt, and the facts as data with strangers' texts marked.

A prompt is never edited once released: a change is a new file and a new `PROMPT_VERSION`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retention_platform.insights.schema import Analysis, Facts

PROMPT_VERSION = "v1"
#: Fields that hold what somebody else wrote.
_UNTRUSTED = ("title", "category", "chapter", "value")
_FOLDER = Path(__file__).parent / "prompts"


@functools.cache
def instructions() -> str:
    """The prompt of this version."""
    return (_FOLDER / f"{PROMPT_VERSION}.md").read_text(encoding="utf-8")


def question(facts: Facts) -> str:
    """The facts as ASCII JSON in which strangers' texts are named as such. No id of a viewer, session or video."""
    data = {
        "critical_moment_ids": [moment.moment_id for moment in facts.critical],
        **_marked(facts.model_dump(mode="json", exclude={"facts_version"})),
    }
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"))


def correction(faults: Sequence[str]) -> str:
    """What is said to an answer that cannot be used."""
    listed = "\n".join(f"- {fault}" for fault in faults)
    return f"This answer cannot be used:\n{listed}\nWrite the whole analysis again, with these faults mended."


def answer_format() -> dict[str, Any]:
    """The answer's schema as structured outputs take it."""
    schema = _bare_references(Analysis.model_json_schema())
    return {"type": "json_schema", "json_schema": {"name": "analysis", "schema": schema, "strict": True}}


def _bare_references(value: Any) -> Any:
    """Structured outputs take nothing beside a ``$ref``, not even a description."""
    if isinstance(value, dict):
        kept = {"$ref": value["$ref"]} if "$ref" in value else value
        return {key: _bare_references(part) for key, part in kept.items()}
    return [_bare_references(part) for part in value] if isinstance(value, list) else value


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"untrusted_{key}" if key in _UNTRUSTED else key: _marked(part) for key, part in value.items()}
    return [_marked(part) for part in value] if isinstance(value, list) else value
