"""Asks a language model for an analysis, through any server that speaks OpenAI's protocol, and survives its answers.

Requests that fail (429 with Retry-After, 5xx, timeouts) are repeated by the client, with backoff and jitter. An answer
that cannot be used is asked for once more with its faults named. What is left becomes a note in one line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import openai
from pydantic import ValidationError

from retention_platform.insights import prompt
from retention_platform.insights.checks import MAX_FAULTS, faults_of
from retention_platform.insights.schema import Analysis, Facts, Usage
from retention_platform.report.untrusted import plain

if TYPE_CHECKING:
    from retention_platform.settings import Settings

#: Times the client repeats a request that failed, and that an answer which cannot be used is asked for again.
RETRIES, CORRECTIONS = 2, 1
#: Tokens of an answer; one that is longer is cut off, and refused.
MAX_TOKENS = 16_000
#: Characters of what a server says of its failure.
MAX_REASON = 200


class ModelUnusable(Exception):
    """The server cannot be used now, in one line; asking it about the next video would end alike."""


class AnswerUnusable(Exception):
    """This answer cannot be used, for these reasons."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Punctual(openai.DefaultAsyncHttpxClient):
    """Gives up a request after its timeout though the server still sends: by itself the client limits silence alone."""

    async def send(self, request: Any, **options: Any) -> Any:
        limit = request.extensions["timeout"]["read"]
        try:
            return await asyncio.wait_for(super().send(request, **options), limit)
        except asyncio.TimeoutError:
            raise httpx.ReadTimeout(f"no whole answer within {limit:g} s") from None


@dataclass
class Model:
    """One server and model, for one run: it counts what it takes, and asks no more once the server cannot be used."""

    settings: Settings
    #: Answers that may still be asked for.
    calls_left: int
    usage: Usage = field(default_factory=Usage)
    #: Why nothing is asked any more; empty while something is.
    stopped: str = ""

    def __post_init__(self) -> None:
        self._host = urlsplit(str(self._client().base_url)).netloc.rpartition("@")[2]

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self.settings.openai_api_key.get_secret_value(),
            base_url=self.settings.openai_base_url or None,
            timeout=self.settings.openai_timeout_seconds,
            max_retries=RETRIES,
            http_client=_Punctual(),
        )

    def analyse(self, facts: Facts) -> tuple[Analysis | None, str]:
        """An analysis that `checks` finds no fault with; else None, and why in one line."""
        messages: list[dict[str, str]] = [
            {"role": "system", "content": prompt.instructions()},
            {"role": "user", "content": prompt.question(facts)},
        ]
        faults: list[str] = []
        for _ in range(1 + CORRECTIONS):
            if self.stopped:
                return None, self.stopped
            if self.calls_left <= 0:
                return None, "the budget of answers is spent (INSIGHTS_MAX_CALLS_PER_RUN)"
            text = ""
            try:
                text = self._ask(messages)
                return _usable(text, facts), ""
            except ModelUnusable as error:
                self.stopped = str(error)
                return None, self.stopped
            except AnswerUnusable as error:
                faults = error.faults
                # An answer that never came whole is not shown to the model again.
                messages += [{"role": "assistant", "content": text}] if text else []
                messages.append({"role": "user", "content": prompt.correction(faults)})
        reason = plain("; ".join(faults), MAX_REASON)
        return None, f"{self.settings.openai_model} gave {1 + CORRECTIONS} answers that cannot be used: {reason}"

    def _ask(self, messages: list[dict[str, str]]) -> str:
        """The text of one answer. Raises ModelUnusable and AnswerUnusable."""
        self.calls_left -= 1
        self.usage += Usage(calls=1)
        try:
            answer = asyncio.run(self._create(messages))
        except openai.OpenAIError as error:
            raise ModelUnusable(self._told(error)) from None
        except ValueError:
            # A body that is no JSON although the server said so.
            raise ModelUnusable(f"{self._host} does not answer in OpenAI's protocol: check OPENAI_BASE_URL") from None
        return self._text(answer)

    async def _create(self, messages: list[dict[str, str]]) -> Any:
        async with self._client() as client:
            # Its overloads know no message made of plain data.
            create: Any = client.chat.completions.create
            return await create(
                model=self.settings.openai_model,
                messages=messages,
                response_format=prompt.answer_format(),
                max_completion_tokens=MAX_TOKENS,
            )

    def _text(self, answer: Any) -> str:
        # Nothing holds a compatible server to the protocol: any part may be missing.
        usage = getattr(answer, "usage", None)
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        read, written = (count if isinstance(count, int) else 0 for count in counts)
        self.usage += Usage(input_tokens=read, output_tokens=written)
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise ModelUnusable(f"{self._host} does not answer in OpenAI's protocol: check OPENAI_BASE_URL")
        message = getattr(choices[0], "message", None)
        if refusal := getattr(message, "refusal", None):
            raise AnswerUnusable([f"refused: {plain(str(refusal), MAX_REASON)}"])
        reason = getattr(choices[0], "finish_reason", None)
        if reason == "length":
            raise AnswerUnusable(["cut off: it was longer than may be; write less"])
        if reason == "content_filter":
            raise AnswerUnusable(["stopped by the server's content filter"])
        text = getattr(message, "content", None)
        if not isinstance(text, str) or not text.strip():
            raise AnswerUnusable(["empty"])
        return text

    def _told(self, error: openai.OpenAIError) -> str:
        """The client's error in one line, without anything of the key."""
        host, model = self._host, self.settings.openai_model
        if isinstance(error, openai.AuthenticationError):
            return f"{host} refuses OPENAI_API_KEY: check the key"
        if isinstance(error, openai.PermissionDeniedError):
            return f"{host} does not let this OPENAI_API_KEY use {model}: choose another OPENAI_MODEL"
        if isinstance(error, openai.NotFoundError):
            return f"{host} knows no model {model}: check OPENAI_MODEL and OPENAI_BASE_URL"
        if isinstance(error, openai.RateLimitError):
            return f"{host} limits requests, and still did after {RETRIES} retries"
        if isinstance(error, openai.APITimeoutError):
            return f"{host} did not answer within {self.settings.openai_timeout_seconds:g} s, {RETRIES + 1} times"
        if isinstance(error, openai.APIConnectionError):
            return f"{host} cannot be reached: check OPENAI_BASE_URL and the network"
        if isinstance(error, openai.InternalServerError):
            return f"{host} failed with status {error.status_code}, and still did after {RETRIES} retries"
        if isinstance(error, openai.APIStatusError):
            said = str(error.message).replace(self.settings.openai_api_key.get_secret_value(), "…")
            return f"{host} does not take the request (status {error.status_code}): {plain(said, MAX_REASON)}"
        return f"{host} does not answer in OpenAI's protocol: check OPENAI_BASE_URL"


def _usable(text: str, facts: Facts) -> Analysis:
    """The answer, when it is the schema and holds nothing but what the facts hold. Raises AnswerUnusable."""
    try:
        analysis = Analysis.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
        raise AnswerUnusable(
            [f"not the schema: {'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}" for fault in found]
        ) from None
    faults = faults_of(analysis, facts)
    if faults:
        raise AnswerUnusable(faults)
    return analysis
