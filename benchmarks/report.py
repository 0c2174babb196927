"""What a benchmark prints and what `docs/benchmarks.md` keeps of it: text and tables, a section a benchmark."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

HEAD = "# Benchmarks\n\nWritten by `make bench ARGS=--write`, each section by one run on the machine it names.\n"


class Report:
    """One benchmark's section: shown on the terminal as it comes, kept as Markdown."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.console = Console()
        self._markdown = [f"## {title}", f"{machine()}, {datetime.now(timezone.utc):%Y-%m-%d}."]
        self.console.rule(title)

    def text(self, text: str) -> None:
        """A paragraph; Markdown."""
        self._markdown.append(text)
        self.console.print(text, markup=False, highlight=False)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; the first column is to the left, the others, figures, to the right."""
        shown = Table(box=None)
        for number, title in enumerate(head):
            shown.add_column(title, justify="right" if number else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(str(value) for value in row))
        self.console.print(shown)
        lines = [head, ["---" if number == 0 else "---:" for number in range(len(head))], *rows]
        self._markdown.append("\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines))

    def write(self, path: Path) -> None:
        """Put this section into the document, in the place of what an earlier run wrote there."""
        begin, end = f"<!-- {self.name} -->", f"<!-- /{self.name} -->"
        section = "\n\n".join([begin, *self._markdown, end])
        document = path.read_text(encoding="utf-8") if path.exists() else HEAD
        there = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if there.search(document):
            document = there.sub(lambda _: section, document)
        else:
            document = f"{document.rstrip()}\n\n{section}\n"
        path.write_text(document, encoding="utf-8")


def machine() -> str:
    """The machine in words: cores, memory, processor, Python."""
    processor = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and (model := re.search(r"model name\s*:\s*(.+)", cpu.read_text(encoding="utf-8"))):
        processor = model[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({processor}), {memory:.0f} GiB, Python {platform.python_version()}"
