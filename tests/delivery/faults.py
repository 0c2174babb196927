"""What may go wrong, each a step that a seeded test takes at some moment; `World.settle` makes all of it well again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from tests.delivery.world import World, wait_until

Fault = Callable[[World], None]


def nap(world: World, least: float, most: float) -> None:
    """Wait a seeded while."""
    time.sleep(world.rng.uniform(least, most))


def ingest_is_killed(world: World) -> None:
    """And another is started."""
    world.rng.choice([one for one in world.ingests if one.runs]).kill()
    world.start_ingest()


def ingest_freezes(world: World) -> None:
    """For less than the group would notice."""
    process = world.rng.choice([one for one in world.ingests if one.runs])
    process.freeze()
    nap(world, 0.3, 2)
    process.thaw()


def ingest_becomes_a_zombie(world: World) -> None:
    """Frozen until the group has given its partitions to another, then it goes on as if nothing had been."""
    # The one that was started first is the likeliest to have partitions; alone, it surely has them.
    process = next(one for one in world.ingests if one.runs)
    reached = world.reached()
    wait_until(lambda: world.reached_beyond(reached), "ingest to be under way")
    process.freeze()
    ends = world.ends()
    world.start_ingest()
    # What came after it froze, it cannot have read: others have stored it.
    wait_until(lambda: world.reached_beyond(ends), "another ingest to own every partition")
    process.thaw()
    nap(world, 0.5, 1)


def an_ingest_joins(world: World) -> None:
    """The group is dealt anew."""
    if sum(one.runs for one in world.ingests) < 3:
        world.start_ingest()


def an_ingest_leaves(world: World) -> None:
    """Asked to, as by a deployment; one stays."""
    running = [one for one in world.ingests if one.runs]
    if len(running) > 1:
        # One that was started a moment ago may not listen to signals yet, and dies of it.
        assert world.rng.choice(running).terminate() in (0, -signal.SIGTERM)


def clickhouse_is_killed(world: World) -> None:
    """And comes back on its data."""
    assert world.clickhouse is not None
    world.clickhouse.kill()
    nap(world, 0.1, 1)
    world.start_clickhouse()


def clickhouse_freezes(world: World) -> None:
    """For a while."""
    assert world.clickhouse is not None
    world.clickhouse.freeze()
    nap(world, 0.5, 2.5)
    world.clickhouse.thaw()


def answers_are_lost(world: World) -> None:
    """ClickHouse has stored the batch, and nobody hears of it."""
    before = world.proxy.swallowed
    world.proxy.swallow = world.rng.randrange(1, 5)
    wait_until(lambda: world.proxy.swallowed > before, "an answer to be lost")


def clickhouse_answers_with_an_error(world: World) -> None:
    """As it does while it starts or has too much to do, or as a load balancer does in its place."""
    before = world.proxy.answered
    world.proxy.status = world.rng.choice([500, 502, 503])
    world.proxy.cut()
    wait_until(lambda: world.proxy.answered > before, "a request to be answered with an error")
    nap(world, 0.1, 1)
    world.proxy.status = 0


def clickhouse_does_not_answer(world: World) -> None:
    """Connections are taken, and then nothing, until they are gone."""
    before = world.proxy.ignored
    world.proxy.silent = True
    world.proxy.cut()
    wait_until(lambda: world.proxy.ignored > before, "a request not to be answered")
    nap(world, 0.5, 2)
    world.proxy.silent = False
    world.proxy.cut()


def clickhouse_refuses(world: World) -> None:
    """Connections are closed at once."""
    world.proxy.refusing = True
    world.proxy.cut()
    nap(world, 0.5, 1.5)
    world.proxy.refusing = False


def connections_are_cut(world: World) -> None:
    """In the middle of whatever they carry."""
    for _ in range(world.rng.randrange(1, 4)):
        world.proxy.cut()
        nap(world, 0.05, 0.3)


#: Faults that need no broker of a certain kind.
ALL: tuple[Fault, ...] = (
    ingest_is_killed,
    ingest_freezes,
    ingest_becomes_a_zombie,
    an_ingest_joins,
    an_ingest_leaves,
    clickhouse_is_killed,
    clickhouse_freezes,
    answers_are_lost,
    clickhouse_answers_with_an_error,
    clickhouse_does_not_answer,
    clickhouse_refuses,
    connections_are_cut,
)
