"""The broker of a soak, and what may happen to it: Apache Kafka where there is one, else the development broker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from tests.api_support import free_port
from tests.delivery.faults import Fault, nap
from tests.delivery.kafka import VERSION, Kafka
from tests.delivery.proxy import Proxy
from tests.delivery.world import World


@dataclass
class Broker:
    """A broker that runs."""

    name: str
    address: str
    #: Names the log in tokens; empty where the broker itself can be asked.
    log_id: str
    faults: list[Fault] = field(default_factory=list)


@contextlib.contextmanager
def apache_kafka(folder: Path) -> Iterator[Broker]:
    """One node, which clients reach through a proxy, with the topics made."""
    port = free_port()
    kafka = Kafka(folder / "broker", advertised_port=port)
    try:
        kafka.start()
        with Proxy(kafka.port, port) as proxy:
            kafka.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)

            def the_broker_is_killed(world: World) -> None:
                kafka.kill()
                nap(world, 0.2, 4)
                kafka.start()

            def the_broker_is_cut_off(world: World) -> None:
                proxy.refusing = True
                proxy.cut()
                nap(world, 0.5, 5)
                proxy.refusing = False

            faults: list[Fault] = [the_broker_is_killed, the_broker_is_cut_off]
            yield Broker(f"Apache Kafka {VERSION}", f"127.0.0.1:{port}", "", faults)
    finally:
        kafka.stop()


@contextlib.contextmanager
def development(folder: Path) -> Iterator[Broker]:
    """librdkafka's, which forgets everything when it ends: it can be away, and not be killed."""
    file = folder / "broker-address"
    process = subprocess.Popen(
        [sys.executable, "-m", "retention_platform.embedded.broker", "--address-file", str(file)],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert process.poll() is None and time.monotonic() < deadline, "the development broker does not start"
            time.sleep(0.02)

        def the_broker_does_not_answer(world: World) -> None:
            process.send_signal(signal.SIGSTOP)
            nap(world, 0.5, 4)
            process.send_signal(signal.SIGCONT)

        address = file.read_text(encoding="utf-8").strip()
        yield Broker("the development broker", address, f"soak-{os.getpid()}", [the_broker_does_not_answer])
    finally:
        process.kill()
        process.wait()
