"""SQLAlchemy over `clickhousedb://`: tables made, reflected and migrated, statements of the expression language."""

from __future__ import annotations

import enum
import io
import textwrap
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from clickhouse_connect.cc_sqlalchemy import alembic as clickhouse_alembic
from clickhouse_connect.cc_sqlalchemy import array_join, engines, final, sample, types
from clickhouse_connect.cc_sqlalchemy.ddl.custom import CreateDatabase, DropDatabase
from sqlalchemy import orm
from sqlalchemy.exc import DatabaseError, NoSuchTableError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.conftest import unique
from tests.embedded_clients.conftest import HOST, wait_for


@pytest.fixture(scope="module")
def engine(port: int, database: str) -> Iterator[sa.Engine]:
    """An engine whose address says settings and options, as one in a BI tool does."""
    options = "query_limit=2333&compression=zstd&use_skip_indexes=0&ch_http_max_field_name_size=99999"
    engine = sa.create_engine(f"clickhousedb://default:@{HOST}:{port}/{database}?{options}")
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


def name() -> str:
    return unique("s").replace("-", "_")


class Colour(enum.Enum):
    RED = 1
    TEAL = -4


@pytest.fixture(scope="module")
def shop(engine: sa.Engine) -> Iterator[sa.MetaData]:
    """Customers and their orders."""
    metadata = sa.MetaData()
    customers = sa.Table(
        "customers",
        metadata,
        sa.Column("id", types.UInt32),
        sa.Column("name", types.String),
        engines.MergeTree(order_by="id"),
    )
    orders = sa.Table(
        "orders",
        metadata,
        sa.Column("id", types.UInt32),
        sa.Column("customer_id", types.UInt32),
        sa.Column("amount", types.Decimal(18, 2)),
        sa.Column("tags", types.Array(types.String)),
        sa.Column("at", types.DateTime64(3)),
        engines.ReplacingMergeTree(version="at", order_by="id", sample_by=None),
    )
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(
            customers.insert(), [{"id": n, "name": text} for n, text in enumerate(["Ada", "Bob's", "Çelik"], 1)]
        )
        connection.execute(
            orders.insert(),
            [
                {"id": n, "customer_id": c, "amount": Decimal(a), "tags": t, "at": datetime(2024, 1, n)}
                for n, c, a, t in [(1, 1, "15.00", ["x", "y"]), (2, 2, "0.25", []), (3, 1, "0.75", ["x"])]
            ],
        )
    yield metadata
    with engine.begin() as connection:
        metadata.drop_all(connection)


def test_a_table_of_every_type_is_made_reflected_and_filled(connection: sa.Connection) -> None:
    kinds: dict[str, tuple[Any, Any]] = {
        "i": (types.Int8, -1),
        "u": (types.UInt256, 2**200),
        "f": (types.Float64, 1.5),
        "d": (types.Decimal(40, 5), Decimal("1.00001")),
        "e": (types.Enum16(Colour), "TEAL"),
        "s": (types.String, "é"),
        "x": (types.FixedString(3), b"abc"),
        "b": (types.Bool, True),
        "g": (types.UUID, UUID(int=5)),
        "t": (types.DateTime64(3, "Europe/Moscow"), None),
        "l": (types.LowCardinality(types.Nullable(types.String)), None),
        "a": (types.Array(types.UUID), [UUID(int=1)]),
        "p": (types.Tuple(types.Int8, types.String), (1, "x")),
        "j": (types.JSON, {"k": "v"}),
    }
    metadata = sa.MetaData()
    table = sa.Table(
        name(),
        metadata,
        *(sa.Column(column, kind) for column, (kind, _) in kinds.items()),
        engines.MergeTree(order_by="i"),
    )
    table.create(connection)
    values = {column: value for column, (_, value) in kinds.items() if column != "t"}
    connection.execute(table.insert().values({**values, "t": datetime(2024, 1, 1)}))
    (row,) = connection.execute(sa.select(*(table.c[column] for column in values))).all()
    assert row._asdict() == values
    reflected = sa.Table(table.name, sa.MetaData(), autoload_with=connection)
    assert {column.name: type(column.type) for column in reflected.columns} == {
        column.name: type(column.type) for column in table.columns
    }
    assert reflected.engine.name == "MergeTree"
    table.drop(connection)
    assert not sa.inspect(connection).has_table(table.name)


@pytest.mark.parametrize(
    "table_engine",
    [
        engines.MergeTree(order_by=("k", "v"), primary_key="k", partition_by="k"),
        engines.ReplacingMergeTree(order_by="k", version="v"),
        engines.SummingMergeTree(order_by="k"),
        engines.AggregatingMergeTree(order_by="k"),
        engines.CollapsingMergeTree(order_by="k", sign="s"),
        engines.Memory(),
        engines.Log(),
    ],
    ids=lambda table_engine: type(table_engine).__name__,
)
def test_tables_of_every_engine_are_made_and_known_again(connection: sa.Connection, table_engine: Any) -> None:
    columns = [sa.Column("k", types.UInt32), sa.Column("v", types.UInt32), sa.Column("s", types.Int8)]
    table = sa.Table(name(), sa.MetaData(), *columns, table_engine)
    table.create(connection)
    reflected = sa.Table(table.name, sa.MetaData(), autoload_with=connection)
    assert reflected.engine.name == type(table_engine).__name__
    table.drop(connection)


def test_the_inspector_knows_what_is_there(connection: sa.Connection, shop: sa.MetaData, database: str) -> None:
    view = name()
    connection.execute(sa.text(f"create view {view} as select id from customers"))
    inspector = sa.inspect(connection)
    assert {"system", database} <= set(inspector.get_schema_names())
    assert {"customers", "orders"} <= set(inspector.get_table_names())
    assert view in inspector.get_view_names()
    assert [column["name"] for column in inspector.get_columns("orders")] == [
        column.name for column in shop.tables["orders"].columns
    ]
    assert inspector.has_table("customers")
    assert inspector.has_table("one", schema="system")
    assert not inspector.has_table("not_there")
    assert inspector.get_foreign_keys("orders") == []
    with pytest.raises(NoSuchTableError):
        sa.Table("not_there", sa.MetaData(), autoload_with=connection)
    connection.execute(sa.text(f"drop view {view}"))


def test_databases_are_made_and_dropped(connection: sa.Connection, engine: sa.Engine) -> None:
    other = name()
    connection.execute(CreateDatabase(other, "Atomic"))
    assert engine.dialect.has_database(connection, other)
    connection.execute(DropDatabase(other))
    assert not engine.dialect.has_database(connection, other)


def test_statements_of_the_expression_language_answer(connection: sa.Connection, shop: sa.MetaData) -> None:
    customers, orders = shop.tables["customers"], shop.tables["orders"]
    total = sa.func.sum(orders.c.amount).label("total")
    query = (
        sa.select(customers.c.name, total, sa.func.count().label("n"))
        .select_from(customers.join(orders, customers.c.id == orders.c.customer_id))
        .where(orders.c.amount > Decimal("0.1"), customers.c.name.in_(["Ada", "Bob's"]))
        .group_by(customers.c.name)
        .having(total > 0)
        .order_by(sa.desc("total"))
    )
    assert connection.execute(query).all() == [("Ada", Decimal("15.75"), 2), ("Bob's", Decimal("0.25"), 1)]
    outer = (
        sa.select(customers.c.id)
        .outerjoin(orders, customers.c.id == orders.c.customer_id)
        .distinct()
        .order_by(customers.c.id)
    )
    assert connection.execute(outer).scalars().all() == [1, 2, 3]
    common = sa.select(orders.c.customer_id.label("c")).where(orders.c.amount > 1).cte("big")
    assert (
        connection.execute(sa.select(customers.c.name).where(customers.c.id.in_(sa.select(common.c.c)))).scalar_one()
        == "Ada"
    )
    union = sa.union_all(sa.select(sa.literal(1).label("n")), sa.select(sa.literal(2)))
    assert sorted(connection.execute(union).scalars().all()) == [1, 2]
    limited = sa.select(customers.c.id).order_by(customers.c.id.desc()).limit(1).offset(1)
    assert connection.execute(limited).scalar_one() == 2
    window = sa.select(customers.c.id, sa.func.row_number().over(order_by=customers.c.name.desc())).order_by(
        customers.c.id
    )
    assert connection.execute(window).all() == [(1, 3), (2, 2), (3, 1)]
    case = sa.select(sa.case((customers.c.id > 2, "high"), else_="low")).order_by(customers.c.id)
    assert connection.execute(case).scalars().all() == ["low", "low", "high"]


def test_what_only_clickhouse_has_can_be_said(connection: sa.Connection, shop: sa.MetaData) -> None:
    orders = shop.tables["orders"]
    connection.execute(
        orders.insert().values(id=1, customer_id=1, amount=Decimal(99), tags=[], at=datetime(2025, 1, 1))
    )
    newest = final(sa.select(orders.c.amount).where(orders.c.id == 1), orders)
    assert connection.execute(newest).scalars().all() == [Decimal(99)]
    joined = (
        sa.select(orders.c.id, orders.c.tags)
        .select_from(array_join(orders, orders.c.tags))
        .order_by(orders.c.id, orders.c.tags)
    )
    assert connection.execute(joined).all() == [(1, "x"), (1, "y"), (3, "x")]
    connection.execute(orders.delete().where(orders.c.amount == Decimal(99)))
    assert connection.execute(sa.select(sa.func.max(orders.c.amount))).scalar_one() == Decimal(15)
    with pytest.raises(DatabaseError):
        connection.execute(sample(sa.select(orders.c.id), 0.5, orders)).all()


def test_text_with_binds_and_percents_arrives(connection: sa.Connection) -> None:
    query = sa.text("select :n + 1, :s, 'single% adjacent%% %(token)s', '\\:not'").bindparams(n=78, s="it's; -- %")
    assert connection.execute(query).one() == (79, "it's; -- %", "single% adjacent%% %(token)s", ":not")
    assert connection.exec_driver_sql("select %(n)s, '%%'", {"n": 5}).one() == (5, "%")
    empty = connection.exec_driver_sql("with 13 as v select v where 0")
    assert list(empty.keys()) == ["v"]
    assert empty.all() == []


def test_parameters_are_bound_by_the_server_when_asked(port: int, database: str) -> None:
    engine = sa.create_engine(f"clickhousedb://{HOST}:{port}/{database}", server_side_params=True)
    value, label = sa.bindparam("value", type_=types.UInt32()), sa.bindparam("label", type_=types.String())
    with engine.connect() as connection:
        row = connection.execute(sa.select(value, label), {"value": 113, "label": "it's %pct"}).one()
        assert row == (113, "it's %pct")
        assert connection.execute(sa.select(value).where(value.in_([13, 113])), {"value": 113}).scalar_one() == 113
    engine.dispose()


def test_settings_go_with_an_address_a_connection_or_a_statement(connection: sa.Connection) -> None:
    query = sa.text("select getSetting('max_threads')")
    connection = connection.execution_options(settings={"max_threads": 2})
    assert connection.execute(query).scalar_one() == 2
    assert connection.execute(query.execution_options(settings={"max_threads": 3})).scalar_one() == 3
    assert connection.execute(sa.text("select getSetting('use_skip_indexes')")).scalar_one() in (0, False)


def test_cursors_page_through_rows_and_tell_what_was_read(connection: sa.Connection) -> None:
    result = connection.exec_driver_sql("select number as v, toString(number) as s from numbers(10) order by v")
    cursor = result.cursor
    assert result.fetchone() == (0, "0")
    assert result.fetchmany(4) == [(n, str(n)) for n in range(1, 5)]
    assert [row.v for row in result.all()] == [5, 6, 7, 8, 9]
    assert cursor.summary[-1]["read_rows"] == "10"
    mapped = connection.exec_driver_sql("select 1 as a, 'x' as b").mappings().one()
    assert mapped == {"a": 1, "b": "x"}


def test_the_limit_of_an_address_holds(connection: sa.Connection) -> None:
    assert len(connection.exec_driver_sql("select number from numbers(5000)").all()) == 2333


def test_an_error_is_one_and_the_connection_lives_on(connection: sa.Connection) -> None:
    with pytest.raises(DatabaseError) as error:
        connection.execute(sa.text("select * from not_there"))
    assert error.value.orig is not None
    assert error.value.orig.code == 60  # type: ignore[attr-defined]
    assert error.value.connection_invalidated is False
    assert connection.execute(sa.text("select 17")).scalar_one() == 17


def test_temporary_tables_live_as_long_as_a_connection(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("create temporary table passing (n UInt8)"))
        connection.execute(sa.text("insert into passing values (4)"))
        assert connection.execute(sa.text("select n from passing")).scalar_one() == 4


def test_mapped_classes_are_stored_and_loaded(engine: sa.Engine) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class Reader(Base):
        __tablename__ = name()
        __table_args__ = (engines.MergeTree(order_by=["id"]),)
        id: orm.Mapped[int] = orm.mapped_column(types.UInt32, primary_key=True)
        label: orm.Mapped[str] = orm.mapped_column(types.String)

    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all([Reader(id=2, label="b"), Reader(id=1, label="a")])
        session.commit()
        found = session.execute(sa.select(Reader).order_by(Reader.id)).scalars().all()
        assert [(reader.id, reader.label) for reader in found] == [(1, "a"), (2, "b")]
    Base.metadata.drop_all(engine)


def test_the_asynchronous_dialect_does_the_same(port: int, database: str, loop: Any) -> None:
    table = sa.Table(
        name(),
        sa.MetaData(),
        sa.Column("n%", types.UInt32),
        sa.Column("s", types.String),
        engines.MergeTree(order_by="s"),
    )

    async def work() -> tuple[list[Any], list[str], int]:
        engine = create_async_engine(f"clickhousedb+async://default:@{HOST}:{port}/{database}")
        async with engine.connect() as connection:
            await connection.run_sync(table.metadata.create_all)
            done = await connection.execute(table.insert(), [{"n%": 13, "s": "a"}, {"n%": 79, "s": "b"}])
            rows = (await connection.execute(sa.select(table).order_by(table.c["n%"]))).all()
            columns = await connection.run_sync(
                lambda c: [column["name"] for column in sa.inspect(c).get_columns(table.name)]
            )
            await connection.run_sync(table.metadata.drop_all)
        async with AsyncSession(engine) as session:
            streamed = [row[0] async for row in await session.stream(sa.text("select number from numbers(5)"))]
        assert streamed == list(range(5))
        await engine.dispose()
        return list(rows), columns, done.rowcount

    assert loop.run_until_complete(work()) == ([(13, "a"), (79, "b")], ["n%", "s"], 2)


def test_migrations_change_tables(connection: sa.Connection, database: str) -> None:
    table = name()
    connection.execute(sa.text(f"create table {table} (id String) engine = MergeTree order by id"))
    context = MigrationContext.configure(connection=connection, opts={"version_table": name()})
    assert isinstance(context.impl, clickhouse_alembic.ClickHouseImpl)
    operations = Operations(context)
    column = sa.Column("payload", types.String(), server_default=sa.text("'{}'"), clickhouse_after="id")
    operations.add_column(table, column, schema=database, if_not_exists=True, clickhouse_settings={"alter_sync": 2})
    connection.execute(sa.text(f"insert into {table} (id) values ('a')"))
    operations.alter_column(table, "payload", schema=database, existing_type=types.String(), new_column_name="renamed")
    assert connection.execute(sa.text(f"select renamed from {table}")).scalar_one() == "{}"
    operations.add_clickhouse_index(table, "by_text", "renamed", "bloom_filter", granularity=1, schema=database)  # type: ignore[attr-defined]
    found = sa.text("select name, type from system.data_skipping_indices where table = :t").bindparams(t=table)
    assert connection.execute(found).all() == [("by_text", "bloom_filter")]
    operations.rename_table(table, f"{table}_new", schema=database)
    assert sa.inspect(connection).has_table(f"{table}_new")
    operations.drop_table(f"{table}_new", schema=database)


@pytest.fixture
def migrations(tmp_path: Path, port: int, database: str) -> Callable[[sa.MetaData], Config]:
    """Writes an Alembic environment for some tables."""
    environment = """
    from alembic import context
    from clickhouse_connect.cc_sqlalchemy import alembic as clickhouse

    connection, metadata = context.config.attributes["connection"], context.config.attributes["metadata"]
    wanted = {*(table.name for table in metadata.tables.values()), "alembic_version"}
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=lambda name, kind, parents: kind != "table" or name in wanted,
        include_object=clickhouse.include_object,
        process_revision_directives=clickhouse.clickhouse_writer,
    )
    with context.begin_transaction():
        context.run_migrations()
    """
    template = """
    \"\"\"${message}\"\"\"
    from alembic import op
    import sqlalchemy as sa
    ${imports if imports else ""}
    revision = ${repr(up_revision)}
    down_revision = ${repr(down_revision)}
    branch_labels = None
    depends_on = None

    def upgrade():
        ${upgrades if upgrades else "pass"}

    def downgrade():
        ${downgrades if downgrades else "pass"}
    """

    def make(metadata: sa.MetaData, connection: sa.Connection) -> Config:
        folder = tmp_path / "alembic"
        (folder / "versions").mkdir(parents=True, exist_ok=True)
        (folder / "env.py").write_text(textwrap.dedent(environment))
        (folder / "script.py.mako").write_text(textwrap.dedent(template))
        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", str(folder))
        config.attributes.update(connection=connection, metadata=metadata)
        return config

    return make  # type: ignore[return-value]


def test_migrations_are_written_by_comparison_and_run_up_and_down(connection: sa.Connection, migrations: Any) -> None:
    metadata = sa.MetaData()
    table = sa.Table(
        name(),
        metadata,
        sa.Column("id", types.Int32, nullable=False),
        engines.MergeTree(order_by="id"),
        comment="what is kept",
    )
    config = migrations(metadata, connection)
    command.revision(config, message="first", autogenerate=True)
    command.upgrade(config, "head")
    inspector = sa.inspect(connection)
    assert inspector.has_table(table.name)
    assert inspector.get_table_comment(table.name)["text"] == "what is kept"
    nothing = command.revision(config, message="nothing", autogenerate=True)
    assert "    pass" in Path(nothing.path).read_text()
    command.upgrade(config, "head")
    table.append_column(sa.Column("later", types.String, nullable=False, server_default=sa.text("'x'")))
    command.revision(config, message="second", autogenerate=True)
    command.upgrade(config, "head")
    wait_for(lambda: [column["name"] for column in sa.inspect(connection).get_columns(table.name)] == ["id", "later"])
    command.downgrade(config, "base")
    assert not sa.inspect(connection).has_table(table.name)
