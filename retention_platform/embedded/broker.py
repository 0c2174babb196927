"""The development broker: librdkafka's built-in one, the real Kafka protocol, in memory, for one machine only.

It keeps 5 MiB (as compressed by the producer) a partition and drops the oldest batches beyond; no option changes that,
nor the 4 partitions of a topic. A reader that is behind the oldest is moved forward without an error, unless its
``auto.offset.reset`` is ``error``. Nothing survives the process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException, Producer

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.errors import RetentionError, ServiceError


class Broker:
    """A broker in this process, there as long as the object is."""

    def __init__(self) -> None:
        # The mock cluster belongs to a client: a producer that never produces.
        self._owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        try:
            brokers = self._owner.list_topics(timeout=10).brokers
            # Topics are made when they are first asked for; CreateTopics is not answered.
            for topic in (EVENTS_TOPIC, VIDEOS_TOPIC):
                self._owner.list_topics(topic, timeout=10)
        except KafkaException as error:
            raise ServiceError(f"the development broker did not start: {error.args[0].str()}") from None
        (broker,) = brokers.values()
        self.address = f"{broker.host}:{broker.port}"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A broker in a child process while the block runs; gives its address, ``127.0.0.1:PORT``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "address"
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, "--address-file", str(file)], stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 20
            while not file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RetentionError("the development broker did not start")
                time.sleep(0.02)
            yield file.read_text(encoding="utf-8").strip()
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Run a broker until SIGTERM or SIGINT, telling its address in a file and on standard output."""
    parser = argparse.ArgumentParser(description="A Kafka broker in memory, for development on one machine.")
    parser.add_argument("--address-file", type=Path, required=True, help="where to write host:port once it is up")
    options = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    broker = Broker()
    partial = options.address_file.with_suffix(".partial")
    partial.write_text(broker.address, encoding="utf-8")
    partial.replace(options.address_file)
    print(broker.address, flush=True)
    stopping.wait()
    # Taking the cluster apart may wait for clients that are still connected; nothing in it is worth the wait.
    os._exit(0)


if __name__ == "__main__":
    main()
