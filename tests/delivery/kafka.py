"""A real Apache Kafka in KRaft mode for the tests: one node on loopback, from the jars that Maven brings.

The jars are kept in the user's cache folder. Where Java or Maven or what it downloads from is missing, `unavailable`
says why, and the tests are skipped with that reason.
"""

from __future__ import annotations

import base64
import functools
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.api_support import free_port
from tests.tls import Authority

VERSION = "4.1.0"
PARTITIONS = 4

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>retention</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "retention-tests" / f"kafka-{VERSION}"


@functools.cache
def unavailable() -> str | None:
    """Why there is no Kafka here; None when there is one. Downloads the jars the first time."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            return f"Apache Kafka needs {program}, which is not on this machine"
    lib = _folder() / "lib"
    if lib.exists():
        return None
    work = _folder().with_name(f"{_folder().name}-{os.getpid()}")
    work.mkdir(parents=True, exist_ok=True)
    (work / "pom.xml").write_text(_POM, encoding="utf-8")
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=240, check=False)
    except subprocess.TimeoutExpired:
        shutil.rmtree(work, ignore_errors=True)
        return "Maven did not bring Apache Kafka within 240 s"
    if done.returncode != 0:
        shutil.rmtree(work, ignore_errors=True)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        return f"Maven cannot bring Apache Kafka: {(lines or ['no reason given'])[0][:200]}"
    try:
        work.rename(_folder())
    except OSError:  # another test process was faster
        shutil.rmtree(work, ignore_errors=True)
    return None


class Kafka:
    """One broker whose process may be killed and started again on its data."""

    def __init__(self, folder: Path, advertised_port: int | None = None, secured: Authority | None = None) -> None:
        """In ``folder``, which must not be there yet. With ``secured`` its clients speak TLS, as user retention with
        password right.
        """
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        folder.mkdir(parents=True)
        controller = free_port()
        protocol, more = "PLAINTEXT", ""
        self._client = {"bootstrap.servers": self.address, "log_level": 0}
        if secured is not None:
            protocol, more = "SASL_SSL", _secured(folder, secured)
            self._client |= {
                "security.protocol": protocol,
                "ssl.ca.location": str(secured.ca),
                "sasl.mechanism": "PLAIN",
                "sasl.username": "retention",
                "sasl.password": "right",
            }
        self._properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://127.0.0.1:{advertised_port or self.port}
listener.security.protocol.map=CLIENT:{protocol},CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
log.dirs={folder / "data"}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
{more}""",
            encoding="utf-8",
        )
        # In one argument: an id may begin with a dash.
        options = (f"--cluster-id={_cluster_id()}", f"--config={self._properties}")
        formatted = self._java("kafka.tools.StorageTool", "format", *options).wait(60)
        assert formatted == 0, (folder / "kafka.log").read_text()[-2000:]

    @property
    def address(self) -> str:
        """Where clients connect to at first."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = self._java("kafka.Kafka", str(self._properties))
        admin = AdminClient(self._client)
        deadline = time.monotonic() + 90
        while True:
            try:
                admin.list_topics(timeout=2)
                return
            except KafkaException:
                assert self._process.poll() is None, (self._folder / "kafka.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "Kafka does not answer"

    def create_topics(self, *names: str) -> None:
        """Make topics with 4 partitions."""
        admin = AdminClient(self._client)
        for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            future.result(30)

    def delete_topics(self, *names: str) -> None:
        """Delete topics, and return when they are gone."""
        admin = AdminClient(self._client)
        for future in admin.delete_topics(list(names)).values():
            future.result(30)
        deadline = time.monotonic() + 60
        while set(names) & set(admin.list_topics(timeout=10).topics):
            assert time.monotonic() < deadline, "the topics do not go"
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it; harmless when it is not running."""
        if self.runs:
            self.kill()

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        jars = str(_folder() / "lib" / "*")
        options = ["-Xmx400m", "-Xms100m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        with (self._folder / "kafka.log").open("ab") as log:
            return subprocess.Popen(["java", *options, "-cp", jars, *arguments], stdout=log, stderr=subprocess.STDOUT)


def _secured(folder: Path, authority: Authority) -> str:
    """The properties of a listener CLIENT with TLS and one user, that other brokers would use as well."""
    both = folder / "server-and-key.pem"
    # Kafka reads no key in the older form that openssl may write.
    key = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", str(authority.key)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    both.write_text(key + authority.cert.read_text(encoding="utf-8"), encoding="utf-8")
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return f"""listener.name.client.ssl.keystore.type=PEM
listener.name.client.ssl.keystore.location={both}
listener.name.client.ssl.truststore.type=PEM
listener.name.client.ssl.truststore.location={authority.ca}
listener.name.client.sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.client.plain.sasl.jaas.config={login} username="retention" password="right" user_retention="right";
"""


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
