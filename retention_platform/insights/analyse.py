"""One video from marts to insights: the one door for the command, the asset and the API."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from retention_platform.insights import prompt, rules
from retention_platform.insights.facts import facts_of, stretches_of
from retention_platform.insights.model import Model
from retention_platform.insights.queries import read_evidence, read_video
from retention_platform.insights.schema import Facts, Insights, Usage
from retention_platform.insights.store import Kept
from retention_platform.report.queries import Ask

if TYPE_CHECKING:
    from retention_platform.settings import Settings


def read_facts(ask: Ask, video_id: str) -> Facts:
    """The facts about a video. Raises UnknownVideo, and ServiceError without marts."""
    rows = read_video(ask, video_id)
    return facts_of(rows, read_evidence(ask, video_id, stretches_of(rows)))


class Analyst:
    """Makes insights of facts in one run, by a language model where one is configured and answers well, else by rules.

    With ``demo`` no language model is asked; ``calls`` is how many answers it may be asked for, when not as many as a
    run may.
    """

    def __init__(self, settings: Settings, *, demo: bool = False, calls: int | None = None) -> None:
        has_key = bool(settings.openai_api_key.get_secret_value())
        budget = settings.insights_max_calls_per_run if calls is None else calls
        self._model = Model(settings, budget) if has_key and not demo else None

    def is_current(self, kept: Kept, facts: Facts) -> bool:
        """Whether insights that are kept are what would be made of these facts again."""
        if kept.facts_hash != facts.hash:
            return False
        if self._model is None or facts.assessment.grade == "insufficient_data":
            return kept.mode == "openai" or kept.model == rules.RULES_VERSION
        return kept[1:] == ("openai", self._model.settings.openai_model, prompt.PROMPT_VERSION)

    @property
    def usage(self) -> Usage:
        """What the language model took so far."""
        return self._model.usage if self._model else Usage()

    def insights(self, video_id: str, facts: Facts) -> Insights:
        """Insights of these facts. A language model's failure becomes the note of an analysis by rules."""
        before, note = self.usage, ""
        if self._model is not None and facts.assessment.grade == "insufficient_data":
            note = "too few views for a language model to be asked about"
        elif self._model is not None:
            analysis, reason = self._model.analyse(facts)
            if analysis is not None:
                return Insights(
                    video_id=video_id,
                    made_at=now(),
                    mode="openai",
                    model=self._model.settings.openai_model,
                    prompt_version=prompt.PROMPT_VERSION,
                    note="",
                    usage=self.usage - before,
                    facts=facts,
                    analysis=analysis,
                )
            note = f"made by rules, since {reason}"
        return Insights(
            video_id=video_id,
            made_at=now(),
            mode="demo",
            model=rules.RULES_VERSION,
            prompt_version="",
            note=note,
            usage=self.usage - before,
            facts=facts,
            analysis=rules.analysis_of(facts),
        )


def is_news(made: Insights, kept: Kept | None) -> bool:
    """Whether insights tell more than those that are kept: rules that stood in for a model again do not."""
    if kept is None or made.mode == "openai" or kept.facts_hash != made.facts.hash:
        return True
    return kept.mode == "demo" and kept.model != made.model


def cost_of(usage: Usage, settings: Settings) -> float | None:
    """What the tokens cost in the currency of the prices that are set; None where none are."""
    prices = settings.openai_input_price, settings.openai_output_price
    if None in prices:
        return None
    return (usage.input_tokens * (prices[0] or 0) + usage.output_tokens * (prices[1] or 0)) / 1_000_000


def now() -> datetime:
    """The time, to the millisecond as it is stored."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
