"""Titles, chapters and names in reports are text whatever they hold: judged by Markdown renderers and an HTML parser.

GitHub's own renderer and markdown-it are asked what a viewer would make of a report, html5lib what a browser would.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cmarkgfm
import html5lib
import plotly.graph_objects
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from retention_platform.report import drawing, markdown, page
from retention_platform.report.facts import facts_of
from retention_platform.report.files import file_name, write_all, write_script
from retention_platform.report.interactive import figure, plotly_js, script_json
from retention_platform.report.make import Format, report_for
from retention_platform.report.model import Bullets, Document, Heading, Paragraph, Strong, Table, Untrusted
from retention_platform.report.queries import Rows
from retention_platform.report.untrusted import plain
from retention_platform.report.video import curve_of, document
from tests.insights_support import insights_row
from tests.report_support import ATTACKS

NOW = datetime(2026, 3, 20, 12, tzinfo=timezone.utc)
# As much as each can make of a text: raw HTML goes through, and bare addresses become links.
RENDERERS = {
    "github": lambda text: cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE),
    "markdown-it": MarkdownIt("gfm-like", {"html": True, "linkify": True, "typographer": False}).render,
}
#: Signs that mean something somewhere, and pieces that do together.
PIECES = [
    *"<>&;'\"`*_~[](){}!#|\\-+=.:@$^/%\n\t 01aZ",
    *("http://", "www.", "](", "```", "---", "<b>", "&lt;", "a@b.c", "x.com", "\u202e", "é", "🎬", "\x00", "</", "|"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join).filter(bool)


def parsed(text: str) -> ET.Element:
    tree = html5lib.parse(text, namespaceHTMLElements=False)
    assert isinstance(tree, ET.Element)
    return tree


def shape(element: ET.Element) -> Any:
    """The tree's elements and attributes without its texts; code around a text is no other shape."""
    children = [shape(child) for child in element if child.tag != "code"]
    return (str(element.tag), sorted((k, v) for k, v in element.attrib.items() if k != "value"), children)


def words_of(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def everywhere(text: str) -> Document:
    """A document that has the text in every place a text can be, among words of ours and first in its line."""
    untrusted = Untrusted(text)
    return Document(
        title=("Report: ", untrusted),
        blocks=[
            Paragraph((untrusted,)),
            Paragraph(("of ", untrusted, " and ", untrusted, "."), note=True),
            Bullets([(untrusted,), (Strong("1:00"), " in ", untrusted, ": 3 views")]),
            Heading("Table"),
            Table(("Name", "Views"), [((untrusted,), ("1",)), ((untrusted, " (few)"), ("2",))]),
            Paragraph(("end",)),
        ],
    )


def shown(text: str) -> str:
    """What a reader should see of the text."""
    return " ".join(plain(text).split())


def assert_only_text(text: str, html: str, reference: str) -> None:
    tree = parsed(html)
    assert shape(tree) == shape(parsed(reference)), text
    seen, wanted = words_of(tree), words_of(parsed(reference))
    # In code in a table's cell the sign that would end the cell is shown as its likeness.
    assert seen.replace("\u2223", "|") == wanted.replace("plain words", shown(text).replace("\u2223", "|")), text


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("name", ATTACKS)
def test_in_markdown_a_text_is_shown_as_it_is_and_does_nothing(renderer: str, name: str) -> None:
    render = RENDERERS[renderer]
    reference = render(markdown.render(everywhere("plain words")))
    assert_only_text(ATTACKS[name], render(markdown.render(everywhere(ATTACKS[name]))), reference)


@settings(deadline=None)
@given(texts)
def test_no_combination_of_signs_gets_through_markdown(text: str) -> None:
    for render in RENDERERS.values():
        reference = render(markdown.render(everywhere("plain words")))
        assert_only_text(text, render(markdown.render(everywhere(text))), reference)


@pytest.mark.parametrize("name", ATTACKS)
def test_in_html_a_text_is_shown_as_it_is_and_does_nothing(name: str) -> None:
    html = page.render(everywhere(ATTACKS[name]))
    assert_only_text(ATTACKS[name], html, page.render(everywhere("plain words")))


@settings(deadline=None)
@given(texts)
def test_no_combination_of_signs_gets_through_html_or_svg(text: str) -> None:
    assert_only_text(text, page.render(everywhere(text)), page.render(everywhere("plain words")))
    ET.fromstring(drawing.svg(curve_of(facts_of(rows_with(text), "video"))))


def test_what_hides_or_turns_text_is_taken_out_and_ordinary_text_stays() -> None:
    assert plain("user\u202egpj.exe \u200b\u2066x\ufeff") == "usergpj.exe x"
    assert plain("a\x00b\x1b[31m\r\n\u2028c") == "a b [31m c"
    for text in ("Ünïcödé — “quotes”", "видео 🎬", "नमस्ते क्‍ष", "👩‍👩‍👧", "مرحبا"):
        assert plain(text) == text
    assert (plain("\u200b"), plain("")) == ("\ufffd", "")
    assert plain("x" * 300) == "x" * 255 + "…"
    assert markdown.render(Document((Untrusted("SQL, from scratch: joins (part 2)"),))) == (
        "# SQL, from scratch: joins (part 2)\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "@octocat",
        "me@localhost",
        "C#12",
        "see #7",
        "GH-7",
        ":smile:",
        "a $x$ b",
        "evil.com",
        "www.x",
        "in 0123abc",
        "x://y",
    ],
)
def test_what_a_site_makes_something_of_although_it_is_escaped_is_shown_as_code(text: str) -> None:
    # Mentions, issues, commits, emoji, formulas: what GitHub and others look for after Markdown was read.
    assert markdown.render(Document((Untrusted(text),))) == f"# `{text}`\n"


def rows_with(text: str, views: int = 400) -> Rows:
    """The rows of a video that has the text wherever a mart holds one."""
    curve = [
        {
            "second": second,
            "views": views,
            "watching_views": views - second,
            "segment_plays": views + second,
            "retention_rate": (views - second) / views,
            "audience_watch_ratio": (views + second) / views,
            "reach_ratio": 1 - second / views,
            "ci_low": 0.5,
            "ci_high": 1.0,
        }
        for second in range(90)
    ]
    summary = dict.fromkeys(
        ["watch_time_s", "average_view_duration_s", "average_view_percentage", "seeks_per_view"], 12.5
    )
    shares = dict.fromkeys(["completion_rate", "hook_retention_3s", "intro_retention_30s", "rewatch_rate"], 0.25)
    counts = dict.fromkeys(["views", "unique_viewers", "engaged_views", "peak_concurrent_viewers", "sessions"], views)
    times = dict.fromkeys(["computed_at", "last_ingested_at", "first_event_at", "last_event_at"], NOW)
    moment = {"level": 0.5, "magnitude": 12.0, "magnitude_low": 10.0, "magnitude_high": 14.0, "peak_second": 42}
    return {
        "video": [
            {
                "video_id": text,
                "title": text,
                "category": text,
                "published_at": NOW,
                "duration_s": 90.0,
                "duration_source": "catalogue",
                "chapters": [{"start_ms": 0, "title": text}, {"start_ms": 30_000, "title": text}],
            }
        ],
        "summary": [{**summary, **shares, **counts, **times}],
        "curve": curve,
        "dropoffs": [
            {
                "start_second": 40,
                "end_second": 41,
                "severity": "high",
                "views_lost": 50,
                "expected_views_lost": 1.5,
                "excess_points": 12.1,
                "at_risk": 300,
                "q_value": 1e-9,
                "chapter": text,
                "tentative": False,
            }
        ],
        "typical": [{"peers": "similar", "videos": 7, "completion_rate": 0.2}],
        "moments": [
            {"kind": kind, "start_second": 40, "end_second": 50, "chapter": text, "tentative": True, **moment}
            for kind in ("intro", "spike", "dip", "top_moment", "outro")
        ],
        "segments": [
            {"dimension": dimension, "value": text, "views": views, "share_of_views": 1.0, "is_sufficient": True}
            | dict.fromkeys(("average_view_duration_s", "average_view_percentage", "completion_rate"), 0.5)
            | {"intro_retention_30s": None}
            for dimension in ("country", "device_type")
        ],
        "quality": [{"figure": "invalid_intervals", "found": 3, "out_of": 900}],
        "insights": [insights_row(text)],
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_a_whole_report_has_the_same_shape_whatever_its_texts_are(name: str) -> None:
    ordinary, attacked = rows_with("plain words"), rows_with(ATTACKS[name])
    for render in RENDERERS.values():
        found, wanted = (
            parsed(render(report_for(rows, "video", made_at=NOW, picture="a b.svg"))) for rows in (attacked, ordinary)
        )
        assert shape(found) == shape(wanted)
    found, wanted = (
        parsed(report_for(rows, "video", Format.HTML, made_at=NOW, script="plotly.js")) for rows in (attacked, ordinary)
    )
    # Chapters' titles are in the drawing where there is room, and longer ones are cut.
    for svg in [*found.iter("{http://www.w3.org/2000/svg}svg"), *wanted.iter("{http://www.w3.org/2000/svg}svg")]:
        svg.clear()
    assert shape(found) == shape(wanted)


def scripts(html: str) -> list[ET.Element]:
    return list(parsed(html).iter("script"))


def test_the_page_lets_run_nothing_but_its_own_scripts_and_loads_nothing() -> None:
    html, library = report_for(rows_with("plain words"), "video", Format.HTML, made_at=NOW), plotly_js()
    assert html.count(f"<script>{library}</script>") == 1 and not re.search("</script|<!--|\r", library)
    # The parser takes half a minute for the library.
    html = html.replace(library, "library")
    (policy,) = (e.get("content") or "" for e in parsed(html).iter("meta") if e.get("http-equiv"))
    running = [s.text or "" for s in scripts(html) if s.get("type") != "application/json"]
    running[running.index("library")] = library
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in running}
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert set(rules["script-src"].split()) == hashes and len(hashes) == 2
    assert rules["default-src"] == "'none'"
    for element in parsed(html).iter():
        assert not {"src", "href", "srcset", "data", "action"} & element.attrib.keys(), element.tag
        assert not any(name.startswith("on") for name in element.attrib), element.tag


def test_the_page_draws_with_plotly_what_plotly_knows_and_sends_nothing_away() -> None:
    html = report_for(rows_with(ATTACKS["element"]), "video", Format.HTML, made_at=NOW, script="plotly.js")
    (said,) = (json.loads(s.text or "") for s in scripts(html) if s.get("type") == "application/json")
    assert said == figure(curve_of(facts_of(rows_with(ATTACKS["element"]), "video")))
    plotly.graph_objects.Figure(data=said["data"], layout=said["layout"])
    # Plotly reads tags in labels and templates.
    assert all("<" not in note["text"] for note in said["layout"]["annotations"])
    assert all("{" not in re.sub(r"%\{(customdata\[\d\]|y)", "", t.get("hovertemplate", "")) for t in said["data"])
    assert said["config"]["showSendToCloud"] is False


def test_json_in_a_script_ends_neither_it_nor_a_comment() -> None:
    value = {"text": "</script><!-- <script> ]]> & \u2028"}
    text = script_json(value)
    assert not re.search("[<>&\u2028]", text) and json.loads(text) == value


@settings(deadline=None)
@given(st.text(max_size=300))
def test_a_files_name_is_a_name_on_any_system(video_id: str) -> None:
    try:
        video_id.encode()
    except UnicodeEncodeError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,90}", file_name(video_id))


def test_no_two_videos_have_the_same_file() -> None:
    ids = ["intro", "Intro", "INTRO", "in tro", "in/tro", "in-tro", "../intro", ".", "", "видео", "x" * 200, "x" * 201]
    # An id may try to be another's file.
    ids += [file_name(video_id) for video_id in ids if file_name(video_id) != video_id]
    names = [file_name(video_id) for video_id in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert file_name("intro-to-sql") == "intro-to-sql"


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium on this machine")
def test_a_browser_draws_the_curve_from_a_folder_and_no_text_does_anything(tmp_path: Path) -> None:
    attack = "".join(ATTACKS[name] for name in ("element", "image", "script"))
    rows = rows_with(attack)
    (tmp_path / "videos").mkdir()
    write_all(document(facts_of(rows, "video"), NOW), tmp_path / "videos", "attacked", f"../{write_script(tmp_path)}")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "videos" / "attacked.html").as_uri()]
    dom = parsed(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    (figure_element,) = dom.iter("figure")
    assert any("js-plotly-plot" in (e.get("class") or "") for e in figure_element.iter("div"))
    assert any("scatterlayer" in (e.get("class") or "") for e in figure_element.iter())
    (title,) = (e for e in dom.iter("title"))
    assert words_of(title) == f"Retention report: {shown(attack)}"
