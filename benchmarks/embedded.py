"""What the embedded ClickHouse server costs over its engine called directly, and how it bears many clients.

The engine runs in a process of its own with data of its own, so that both sides start from the same state. Each round
asks both, one after the other and in another order the next time; what is reported are ratios of one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import chdb
import psutil

from benchmarks.report import Report
from retention_platform.embedded.clickhouse import running

TABLE = (
    "create table bench (id UInt64, at DateTime64(3, 'UTC'), value Float64, name String) engine = MergeTree order by id"
)
FILL = (
    "insert into bench select number, toDateTime64(number / 1000, 3), number * 0.5,"
    " concat('viewer ', toString(cityHash64(number) % 10000000)) from numbers({rows})"
)
READ = "select * from bench"
#: Bytes that a row of the table takes in the Native format, as measured.
ROW_BYTES = 38.9
GIGABYTE = 10**9
#: Bytes that are read from and written to a connection at a time.
PIECE = 1 << 20
#: Seconds after which a connection is not used again: the server may be closing it.
IDLE = 10
#: How often memory is told while the crowd is at it, and seconds of rest before it is told once more.
STAGES = 6
REST = 20
#: Seconds in which an engine ends what it does by itself with a table that was emptied.
SETTLE = 1.0
#: Seconds between two looks at how much memory a process has.
LOOK = 0.02


def run(report: Report, size: float = 1.0, rounds: int = 9, clients: int = 200, seconds: float = 360) -> None:
    """Measure; ``size`` is in gigabytes of Native data, ``seconds`` is how long the parallel clients go on.

    Of ``rounds`` there should be a multiple of three, for as many sides to insert.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(Engine.started(folder / "engine"))
        other = stack.enter_context(Engine.started(folder / "other"))
        server = stack.enter_context(Server.started(folder / "server"))
        _start(report, folder / "started", rounds)
        _latency(report, engine, server)
        _gigabyte(report, engine, other, server, folder, size, rounds)
        _parallel(report, server, clients, seconds)


def _start(report: Report, folder: Path, rounds: int, rows: int = 10_000_000, parts: int = 500) -> None:
    """From the start of its process to its first answer: nothing there yet, and a folder with data."""
    taken: dict[str, list[float]] = {"of a new folder": [], f"of {rows:,} rows in {parts} parts": []}
    new, full = taken.values()

    def start(path: Path) -> float:
        begin = time.perf_counter()
        with Server.started(path) as server:
            assert server.ask("value", "select 1") == "1"
            return time.perf_counter() - begin

    with Server.started(folder / "full") as server:
        server.ask("run", TABLE.replace("order by id", f"partition by id % {parts} order by id"))
        # In as many blocks as it takes; merges are to leave the parts as they are.
        server.ask("run", FILL.format(rows=rows) + " settings max_partitions_per_insert_block = 0")
        server.ask("run", "optimize table bench final")
        shape = server.ask("value", "select sum(rows), count() from system.parts where active and table = 'bench'")
        assert shape == f"{rows}\t{parts}", shape
    for number in range(rounds):
        new.append(start(folder / f"new {number}"))
        full.append(start(folder / "full"))
    report.table(
        ("start to first answer, s", "median", "slowest"),
        [(name, f"{statistics.median(found):.2f}", f"{max(found):.2f}") for name, found in taken.items()],
    )


def _latency(report: Report, engine: Engine, server: Server, rounds: int = 20, calls: int = 50) -> None:
    """`SELECT 1` many times over; the connection is kept."""
    times: dict[str, list[float]] = {"engine": [], "server": []}
    for number in range(rounds):
        sides = [("engine", engine.ask), ("server", server.ask)]
        for name, ask in sides if number % 2 else sides[::-1]:
            times[name] += ask("latency", calls)
    middle = {name: statistics.median(found) for name, found in times.items()}
    report.table(
        ("SELECT 1, ms", "median", "99 of 100 within"),
        [(name, f"{middle[name] * 1000:.2f}", f"{_quantile(found, 0.99) * 1000:.2f}") for name, found in times.items()],
    )
    over = (middle["server"] - middle["engine"]) * 1000
    report.text(f"The server takes {over:.2f} ms over the engine ({rounds * calls:,} calls a side).")


def _gigabyte(
    report: Report, engine: Engine, other: Engine, server: Server, folder: Path, size: float, rounds: int
) -> None:
    """A big result read to its end, and the same bytes inserted."""
    rows = round(size * GIGABYTE / ROW_BYTES)
    for side in (engine, server):
        side.ask("run", TABLE)
        side.ask("run", FILL.format(rows=rows))
        side.ask("run", "optimize table bench final")
    file = folder / "bench.native"
    length = server.ask("save", READ, str(file))
    taken: dict[str, list[tuple[float, float, float]]] = {}

    def measure(name: str, side: Engine | Server, *order: Any) -> None:
        # What was written before is not to be paid for by this one.
        os.sync()
        with side.peak() as peak:
            worked = _work(side.process) + _work(psutil.Process())
            begin = time.perf_counter()
            moved = side.ask(*order)
            spent = time.perf_counter() - begin
            worked = _work(side.process) + _work(psutil.Process()) - worked
        assert moved == length, f"{name}: {moved:,} bytes instead of {length:,}"
        taken.setdefault(name, []).append((spent, worked, peak.bytes))

    for number in range(rounds + 1):
        orders: list[tuple[str, Engine | Server, str, str]] = [
            ("result, engine, in one piece", engine, "whole", READ),
            ("result, engine, block by block", engine, "stream", READ),
            ("result, engine, carried to another process", engine, "carry", READ),
            ("result, server", server, "stream", READ),
        ]
        for name, side, *order in orders if number % 2 else orders[::-1]:
            measure(name, side, *order)
    # The engine twice, in processes of their own: how far they are apart tells what a difference of the server's is
    # worth. Each has one turn a round, in every place equally often: memory that an insert has left is given back
    # within seconds, so who had two turns in a row would find it ready the second time.
    inserts: list[tuple[str, Engine | Server]] = [
        ("insert, engine", engine),
        ("insert, server", server),
        ("insert, another engine", other),
    ]
    other.ask("run", TABLE)
    for number in range(rounds + 1):
        first = number % len(inserts)
        for name, side in inserts[first:] + inserts[:first]:
            # On all sides: what one has just written it would go on merging while another is measured.
            for _, each in inserts:
                each.ask("run", "truncate table bench")
            time.sleep(SETTLE)
            measure(name, side, "insert", str(file))
            assert side.ask("count") == rows
    file.unlink()
    # The first round warms caches and pools.
    kept = {name: found[1:] for name, found in taken.items()}
    middle = {name: statistics.median(spent for spent, _, _ in found) for name, found in kept.items()}
    report.table(
        (f"{length / GIGABYTE:.2f} GB, {rows:,} rows", "median s", "fastest s", "CPU s", "MB/s", "memory grew by, MB"),
        [
            (
                name,
                f"{middle[name]:.2f}",
                f"{min(spent for spent, _, _ in found):.2f}",
                f"{statistics.median(worked for _, worked, _ in found):.2f}",
                f"{length / middle[name] / 1e6:,.0f}",
                f"{max(peak for _, _, peak in found) / 1e6:,.0f}",
            )
            for name, found in kept.items()
        ],
    )
    # The same thing measured twice: its mean is the steadier one to stand beside.
    kept["insert, mean of both engines"] = [
        ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2, max(one[2], two[2]))
        for one, two in zip(kept["insert, engine"], kept["insert, another engine"], strict=True)
    ]
    report.text(
        "In one piece is the engine's usual call, `query()`. Block by block, nobody has the bytes but the engine's own"
        " process; carried, it sends those blocks to another one through a bare socket, the least that any server does."
        " CPU time is the server's or engine's and the client's together."
    )
    for name, against in (
        ("result, server", "result, engine, in one piece"),
        ("result, server", "result, engine, carried to another process"),
        ("result, server", "result, engine, block by block"),
        ("insert, server", "insert, mean of both engines"),
        ("insert, server", "insert, engine"),
        ("insert, server", "insert, another engine"),
        ("insert, another engine", "insert, engine"),
    ):
        # Rounds are compared with themselves: what else runs on the machine slows both sides of one.
        pairs = list(zip(kept[name], kept[against], strict=True))
        ratios = [ours[0] / theirs[0] for ours, theirs in pairs]
        worked = statistics.median(ours[1] / theirs[1] for ours, theirs in pairs) - 1
        low, middle_ratio, high = min(ratios) - 1, statistics.median(ratios) - 1, max(ratios) - 1
        report.text(f"{name} / {against}: {middle_ratio:+.0%} ({low:+.0%} to {high:+.0%}), CPU time {worked:+.0%}.")


def _work(process: psutil.Process) -> float:
    """Seconds of CPU time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _parallel(report: Report, server: Server, clients: int, seconds: float) -> None:
    """Clients that ask, sum and insert without a pause, each over a connection of its own."""
    server.ask("run", "create table crowd (client UInt32, n UInt32) engine = MergeTree order by client")
    # The engine has threads for as many statements as ever ran at once, each with memory of its own: for all clients,
    # before growth is counted.
    asyncio.run(_at_once(server.port, clients))
    asyncio.run(_crowd(server.port, clients, min(5.0, seconds)))
    server.ask("run", "truncate table crowd")
    outcome, resident, looks = Outcome(), [server.memory()], Looks(server.memory)
    with looks:
        for _ in range(STAGES):
            asyncio.run(_crowd(server.port, clients, seconds / STAGES, outcome))
            resident.append(server.memory())
    time.sleep(REST)
    stored = int(server.ask("value", "select count() from crowd"))
    total = sum(outcome.done.values())
    report.table(
        (f"{clients} clients, {seconds:.0f} s", ""),
        [
            ("requests", f"{total:,}"),
            ("requests/s", f"{total / seconds:,.0f}"),
            *((f"of them {name}", f"{count:,}") for name, count in sorted(outcome.done.items())),
            ("errors", f"{sum(outcome.errors.values()):,}"),
            ("median ms", f"{statistics.median(outcome.spent) * 1000:.0f}"),
            ("99 of 100 within, ms", f"{_quantile(outcome.spent, 0.99) * 1000:.0f}"),
            *(
                (f"resident memory after {number * seconds / STAGES:.0f} s, MB", f"{found / 1e6:,.0f}")
                for number, found in enumerate(resident)
            ),
            ("highest, MB", f"{looks.highest / 1e6:,.0f}"),
            (f"{REST} s after they left, MB", f"{server.memory() / 1e6:,.0f}"),
            ("rows acknowledged and stored", f"{outcome.rows:,} and {stored:,}"),
        ],
    )
    for text, count in outcome.errors.most_common(5):
        report.text(f"{count} times: {text}")


@dataclass
class Outcome:
    """What the crowd saw."""

    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    spent: list[float] = field(default_factory=list)
    rows: int = 0


async def _at_once(port: int, clients: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            async with session.post(f"http://127.0.0.1:{port}/", data="select sleep(1)") as answer:
                assert answer.status == 200, await answer.text()

        await asyncio.gather(*(one() for _ in range(clients)))


async def _crowd(port: int, clients: int, seconds: float, outcome: Outcome | None = None) -> Outcome:
    outcome = outcome or Outcome()
    deadline = time.perf_counter() + seconds
    address = f"http://127.0.0.1:{port}/"
    inserted = 20

    async def one(session: aiohttp.ClientSession, client: int) -> None:
        rows = "".join(f"{client}\t{n}\n" for n in range(inserted))
        orders = [
            ("SELECT 1", "select 1"),
            ("sums of 100,000", "select sum(number) from numbers(100000)"),
            ("results of 1,000 rows", "select number, toString(number) from numbers(1000) format Native"),
            (f"inserts of {inserted} rows", "insert into crowd format TSV\n" + rows),
        ]
        number = client
        while time.perf_counter() < deadline:
            name, body = orders[number % len(orders)]
            number += 1
            begin = time.perf_counter()
            try:
                async with session.post(address, data=body) as answer:
                    text = await answer.read()
                    if answer.status != 200:
                        outcome.errors[text.decode(errors="replace")[:200]] += 1
                        continue
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                outcome.errors[f"{type(error).__name__}: {error}"] += 1
                continue
            outcome.spent.append(time.perf_counter() - begin)
            outcome.done[name] += 1
            if name.startswith("inserts"):
                outcome.rows += inserted

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(*(one(session, client) for client in range(clients)))
    return outcome


def _quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Looks:
    """Looks at a figure again and again while the block runs; keeps the highest."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure = figure
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.first = self.highest = figure()

    @property
    def bytes(self) -> int:
        """By how much the highest is over the first."""
        return self.highest - self.first

    def _look(self) -> None:
        while not self._ended.wait(LOOK):
            self.highest = max(self.highest, self._figure())

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.highest = max(self.highest, self._figure())


@dataclass
class Engine:
    """chDB in a process of its own, told what to do over a pipe."""

    pipe: Connection
    process: psutil.Process

    @classmethod
    @contextlib.contextmanager
    def started(cls, path: Path) -> Iterator[Engine]:
        """One over ``path`` while the block runs."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(target=_engine, args=(str(path), theirs), daemon=True)
        child.start()
        assert child.pid is not None
        try:
            yield cls(ours, psutil.Process(child.pid))
        finally:
            child.terminate()
            child.join()

    def ask(self, *order: Any) -> Any:
        """Have something done; its answer. Raises RuntimeError with what the engine said."""
        if order[0] == "carry":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.pipe.send((*order, listener.getsockname()[1]))
                line, _ = listener.accept()
                with line:
                    buffer = bytearray(PIECE)
                    while line.recv_into(buffer):
                        pass
        else:
            self.pipe.send(order)
        answer = self.pipe.recv()
        if isinstance(answer, str) and answer.startswith("error: "):
            raise RuntimeError(answer)
        return answer

    def peak(self) -> Looks:
        """A watch on its memory."""
        return Looks(lambda: int(self.process.memory_info().rss))


def _engine(path: str, pipe: Connection) -> None:
    connection = chdb.connect(path)

    def latency(calls: int) -> list[float]:
        return _timed(lambda: connection.query("select 1", "TabSeparated").bytes(), calls)

    def stream(query: str) -> int:
        moved = 0
        with connection.send_query(query, "Native") as result:
            for piece in result:
                moved += len(piece.bytes())
        return moved

    def carry(query: str, port: int) -> int:
        moved = 0
        with socket.create_connection(("127.0.0.1", port)) as line, connection.send_query(query, "Native") as result:
            for piece in result:
                data = piece.bytes()
                line.sendall(data)
                moved += len(data)
        return moved

    def run(query: str) -> None:
        connection.query(query)

    def insert(file: str) -> int:
        connection.query(f"insert into bench from infile '{file}' format Native")
        return Path(file).stat().st_size

    orders: dict[str, Callable[..., Any]] = {
        "latency": latency,
        "run": run,
        "stream": stream,
        "carry": carry,
        "whole": lambda query: len(connection.query(query, "Native").bytes()),
        "insert": insert,
        "count": lambda: int(connection.query("select count() from bench", "TabSeparated").bytes()),
    }
    while True:
        name, *arguments = pipe.recv()
        try:
            pipe.send(orders[name](*arguments))
        except RuntimeError as error:
            pipe.send(f"error: {error}")


def _timed(call: Callable[[], object], calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


class Server:
    """The embedded server and one kept connection to it."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.process = psutil.Process(pid)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600, blocksize=PIECE)
        self._used = time.monotonic()

    @classmethod
    @contextlib.contextmanager
    def started(cls, path: Path) -> Iterator[Server]:
        """One over ``path`` while the block runs."""
        with running(path) as server:
            yield cls(server.port, server.pid)

    def memory(self) -> int:
        """Resident bytes of its process."""
        return int(self.process.memory_info().rss)

    def peak(self) -> Looks:
        """A watch on its memory."""
        return Looks(self.memory)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have something done; its answer. Raises RuntimeError with what the server said."""
        return getattr(self, f"_{name}")(*arguments)

    def _post(self, query: str) -> http.client.HTTPResponse:
        self._renew()
        self._connection.request("POST", f"/?query={quote(query)}")
        return self._answer()

    def _renew(self) -> None:
        """Connect anew when the server may be closing the connection."""
        if time.monotonic() - self._used > IDLE:
            self._connection.close()
        self._used = time.monotonic()

    def _answer(self) -> http.client.HTTPResponse:
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(answer.read().decode(errors="replace"))
        return answer

    def _value(self, query: str) -> str:
        return self._post(query).read().decode().strip()

    def _run(self, query: str) -> None:
        self._value(query)

    def _count(self) -> int:
        return int(self._value("select count() from bench"))

    def _latency(self, calls: int) -> list[float]:
        return _timed(lambda: self._value("select 1"), calls)

    def _stream(self, query: str) -> int:
        answer = self._post(f"{query} format Native")
        buffer = bytearray(PIECE)
        moved = 0
        while length := answer.readinto(buffer):
            moved += length
        return moved

    def _save(self, query: str, file: str) -> int:
        answer = self._post(f"{query} format Native")
        with Path(file).open("wb") as target:
            while piece := answer.read(PIECE):
                target.write(piece)
        return Path(file).stat().st_size

    def _insert(self, file: str) -> int:
        self._renew()
        size = Path(file).stat().st_size
        with Path(file).open("rb") as body:
            self._connection.request(
                "POST", f"/?query={quote('insert into bench format Native')}", body, {"Content-Length": str(size)}
            )
        self._answer().read()
        return size
