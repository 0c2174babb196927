"""The REST API as typed calls. Owns the connection, what its failures mean, and the answers kept by their ETag.

An answer is believed for a second; after that the API is asked whether it is still the one of its ETag, which costs it
next to nothing. Belongs to one process and may be used by many threads.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from retention_platform.api.models.audience import ConcurrentViewers, DataQuality, ViewersNow
from retention_platform.api.models.curves import Comparison, LiveRetentionCurve, RetentionCurve
from retention_platform.api.models.insights import VideoInsights
from retention_platform.api.models.moments import KeyMoments, SignificantDropoffs
from retention_platform.api.models.overview import Overview, Runs, Typical
from retention_platform.api.models.service import Health
from retention_platform.api.models.videos import EngagementBySegment, EngagementDaily, EngagementSummary, VideoList
from retention_platform.dashboard.address import Selection
from retention_platform.errors import ServiceError

#: Seconds to wait for an answer; analyses by a language model take longer.
SECONDS, ANALYSIS_SECONDS = 20.0, 120.0
#: A connection idle for longer is not used again; the API keeps them for much longer.
IDLE_SECONDS = 5.0
#: Answers that are kept, and how long one is believed without asking.
KEEP_ANSWERS, BELIEVE_SECONDS = 256, 1.0
#: The same of which videos and segments there are: everything else waits for them, and they hardly change.
BELIEVE_NAMES_SECONDS = 30.0
#: Points of a curve: more than a screen has columns, and every second of videos of up to half an hour.
CURVE_POINTS, SEGMENT_POINTS = 2000, 300

Parameters = Mapping[str, Any]
Model = TypeVar("Model", bound=BaseModel)
Asked = TypeVar("Asked")
Found = TypeVar("Found")


class ApiAway(ServiceError):
    """Nobody answers at the API's address."""


class ApiProblem(ServiceError):
    """The API answered that it cannot; ``name`` is the kind of problem as programs know it."""

    def __init__(self, status: int, name: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.title = title


class Facts(NamedTuple):
    """What a video's page begins with: the first two of the chosen views, the next three of all."""

    summary: EngagementSummary
    curve: RetentionCurve
    typical: Typical
    dropoffs: SignificantDropoffs
    moments: KeyMoments
    health: Health


class Api:
    """The API at ``base_url``; ``key`` is sent when it asks for one."""

    def __init__(self, base_url: str, key: str = "", *, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.base_url,
            headers={"X-API-Key": key} if key else {},
            timeout=httpx.Timeout(SECONDS, connect=2.0),
            limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
            transport=transport,
            trust_env=False,
        )
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, float, BaseModel]] = OrderedDict()

    # -- the catalogue

    def overview(self, search: str, sort: str, order: str, limit: int, offset: int) -> Overview:
        """A page of the catalogue with the shape of each curve and the last week."""
        asked = {"search": search, "sort": sort, "order": order, "limit": limit, "offset": offset}
        return self._get(Overview, "/overview", asked)

    def videos(self, search: str = "", limit: int = 500) -> VideoList:
        """The most viewed videos, for pickers; up to half a minute old."""
        return self._get(VideoList, "/videos", {"search": search, "limit": limit}, believe=BELIEVE_NAMES_SECONDS)

    def compare(self, video_ids: Sequence[str]) -> Comparison:
        """Curves of several videos on one relative axis."""
        return self._get(Comparison, "/compare", {"video_id": list(video_ids)})

    # -- one video

    def curve(self, chosen: Selection, points: int = CURVE_POINTS) -> RetentionCurve:
        """The curve of the chosen views."""
        return self._get(RetentionCurve, _of(chosen, "retention_curve"), {**chosen.api_parameters(), "points": points})

    def curves(self, choices: Iterable[Selection], points: int = SEGMENT_POINTS) -> list[RetentionCurve]:
        """Curves of several choices, asked for at once, in their order."""
        return _at_once(lambda chosen: self.curve(chosen, points), choices)

    def facts(self, chosen: Selection) -> Facts:
        """All that a video's page begins with, asked for at once."""
        video_id = chosen.video_id or ""
        calls: list[Callable[[], BaseModel]] = [
            lambda: self.summary(chosen),
            lambda: self.curve(chosen),
            lambda: self.typical(video_id),
            lambda: self.dropoffs(video_id),
            lambda: self.moments(video_id),
            self.health,
        ]
        return Facts._make(_at_once(lambda call: call(), calls))

    def live_curve(self, video_id: str, points: int = 600) -> LiveRetentionCurve:
        """The curve of the last hour's sessions."""
        asked = {"source": "live", "points": points}
        return self._get(LiveRetentionCurve, _of(Selection(video_id), "retention_curve"), asked)

    def summary(self, chosen: Selection) -> EngagementSummary:
        """The engagement figures of the chosen views."""
        return self._get(EngagementSummary, _of(chosen, "engagement_summary"), chosen.api_parameters())

    def typical(self, video_id: str) -> Typical:
        """What is typical for videos of this length."""
        return self._get(Typical, _of(Selection(video_id), "typical"))

    def dropoffs(self, video_id: str) -> SignificantDropoffs:
        """Where significantly many leave."""
        return self._get(SignificantDropoffs, _of(Selection(video_id), "significant_dropoffs"))

    def moments(self, video_id: str) -> KeyMoments:
        """What is rewatched, skipped or held."""
        return self._get(KeyMoments, _of(Selection(video_id), "key_moments"))

    def days(self, video_id: str) -> EngagementDaily:
        """The figures day by day."""
        return self._get(EngagementDaily, _of(Selection(video_id), "engagement_daily"))

    def segments(self, video_id: str) -> EngagementBySegment:
        """The figures of each segment, up to half a minute old."""
        path = _of(Selection(video_id), "engagement_by_segment")
        return self._get(EngagementBySegment, path, believe=BELIEVE_NAMES_SECONDS)

    def insights(self, video_id: str, *, fresh: bool) -> VideoInsights:
        """The newest analysis that is kept, or a fresh one, which may take a minute."""
        asked = {"fresh": "true"} if fresh else {}
        seconds = ANALYSIS_SECONDS if fresh else SECONDS
        return self._get(VideoInsights, _of(Selection(video_id), "insights"), asked, seconds=seconds)

    def report(self, video_id: str, format: Literal["md", "html", "svg"]) -> bytes:
        """The report as a file."""
        return self._send(_of(Selection(video_id), "report"), {"format": format}).content

    def curve_csv(self, chosen: Selection) -> bytes:
        """Every second of the curve of the chosen views as CSV."""
        return self._send(_of(chosen, "retention_curve"), {**chosen.api_parameters(), "format": "csv"}).content

    # -- now, and the pipeline

    def viewers_now(self) -> ViewersNow:
        """Who watches now."""
        return self._get(ViewersNow, "/viewers_now")

    def concurrency_live(self, video_id: str | None = None) -> ConcurrentViewers:
        """How many watched at the same time in the last hour."""
        one = {} if video_id is None else {"video_id": video_id}
        return self._get(ConcurrentViewers, "/concurrent_viewers", {"source": "live", **one})

    def concurrencies_live(self, video_ids: Iterable[str]) -> list[ConcurrentViewers]:
        """The same of several videos, asked for at once, in their order."""
        return _at_once(self.concurrency_live, video_ids)

    def quality(self, video_id: str | None = None) -> DataQuality:
        """What of the stream is in no figure."""
        return self._get(DataQuality, "/data_quality", {} if video_id is None else {"video_id": video_id})

    def runs(self) -> Runs:
        """The newest runs of Dagster."""
        return self._get(Runs, "/runs")

    def health(self) -> Health:
        """Which parts are up and how fresh the figures are; an answer as well when the warehouse is away."""
        return self._get(Health, "/health", also=(503,))

    # -- how

    def _get(
        self,
        model: type[Model],
        path: str,
        asked: Parameters | None = None,
        *,
        seconds: float = SECONDS,
        also: tuple[int, ...] = (),
        believe: float = BELIEVE_SECONDS,
    ) -> Model:
        request = self._client.build_request("GET", path, params=asked or {}, timeout=seconds)
        address = str(request.url)
        tag, known = self._known(address, believe)
        if known is not None and not tag:
            return known  # type: ignore[return-value]
        answer = self._send(path, asked, seconds=seconds, also=also, tag=tag)
        if answer.status_code == 304 and known is not None:
            self._keep(address, tag, known)
            return known  # type: ignore[return-value]
        try:
            found = model.model_validate_json(answer.content)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ServiceError(
                f"the API at {self.base_url} answered {path} in another shape than expected ({where}): "
                "it is of another version, or something else listens there; check API_BASE_URL"
            ) from None
        self._keep(address, answer.headers.get("etag", ""), found)
        return found

    def _send(
        self,
        path: str,
        asked: Parameters | None = None,
        *,
        seconds: float = SECONDS,
        also: tuple[int, ...] = (),
        tag: str = "",
    ) -> httpx.Response:
        headers = {"If-None-Match": tag} if tag else {}
        try:
            answer = self._client.get(path, params=asked or {}, headers=headers, timeout=seconds)
        except httpx.TimeoutException:
            raise ApiAway(f"the API at {self.base_url} took too long to answer: it may be busy, try again") from None
        except httpx.HTTPError:
            raise ApiAway(
                f"the API at {self.base_url} does not answer: start it with `retention up`, or set API_BASE_URL"
            ) from None
        if answer.is_success or answer.status_code == 304 or answer.status_code in also:
            return answer
        raise _problem(answer)

    def _known(self, address: str, believe: float) -> tuple[str, BaseModel | None]:
        """The answer that is kept; with its tag when after ``believe`` s the API has to be asked if it still holds."""
        with self._lock:
            tag, kept_at, found = self._kept.get(address, ("", 0.0, None))
        if found is not None and time.monotonic() - kept_at <= believe:
            return "", found
        return tag, found if tag else None

    def _keep(self, address: str, tag: str, found: BaseModel) -> None:
        if not tag:
            return
        with self._lock:
            self._kept[address] = (tag, time.monotonic(), found)
            self._kept.move_to_end(address)
            while len(self._kept) > KEEP_ANSWERS:
                self._kept.popitem(last=False)


def _at_once(ask: Callable[[Asked], Found], questions: Iterable[Asked]) -> list[Found]:
    """The answers in the order of the questions; raises what the first that failed raises."""
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(ask, questions))


def _of(chosen: Selection, what: str) -> str:
    return f"/video/{quote(chosen.video_id or '', safe='')}/{what}"


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        told = answer.json()
        name = str(told["type"]).rsplit(":", 1)[-1]
        return ApiProblem(answer.status_code, name, str(told["title"]), str(told["detail"]))
    except (ValueError, KeyError, TypeError):
        detail = f"the API answered {answer.status_code}: check that API_BASE_URL is that of Retention's API"
        return ApiProblem(answer.status_code, "unknown", "The API cannot answer", detail)
