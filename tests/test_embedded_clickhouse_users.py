"""Who may do what on the embedded server: readers against everything that might let them do more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from retention_platform.embedded.clickhouse import running
from retention_platform.embedded.clickhouse.definer import TABLES_OF_TEXT
from retention_platform.embedded.clickhouse.request import asked_of
from retention_platform.embedded.clickhouse.users import BI_LIMITS, users_of

# One client: each new one reads all of the machine's certificates.
HTTP = httpx.Client(timeout=60)
BI, API = ("bi", "for bi"), ("api", "for api")
SETUP = (
    "create database marts",
    "create database raw",
    "create table marts.t (a Int32, b String) engine = MergeTree order by a",
    "insert into marts.t values (1, 'one'), (2, 'two')",
    "create table raw.t (a Int32) engine = MergeTree order by a",
    "insert into raw.t values (41)",
    "create table raw.j (k Int32, v Int32) engine = Join(any, left, k)",
    "insert into raw.j values (1, 41)",
    "create dictionary raw.d (a Int32, v Int32 default 0) primary key a "
    "source(clickhouse(query 'select 1 as a, 41 as v')) lifetime(0) layout(flat())",
    "create view marts.through as select * from raw.t",
    "create view marts.on_purpose definer = default sql security definer as select a + 1 as a from raw.t",
    "create view marts.plus definer = default sql security definer as select a + {n:Int32} as a from raw.t",
    "create view marts.plus_through as select a + {n:Int32} as a from raw.t",
    "create view raw.plus as select a + {n:Int32} as a from raw.t",
    "create table marts.buffer as raw.t engine = Buffer('raw', 't', 1, 10, 100, 10, 100, 10, 100)",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    passwords = {"CLICKHOUSE_BI_PASSWORD": BI[1], "CLICKHOUSE_API_PASSWORD": API[1]}
    with running(tmp_path_factory.mktemp("users") / "data", password="mine", **passwords) as server:
        for statement in SETUP:
            answer = ask(server.url, ("default", "mine"), statement)
            assert answer.status_code == 200, answer.text
        yield server.url


def ask(url: str, user: tuple[str, str], statement: str, **parameters: str) -> httpx.Response:
    return HTTP.post(url, content=statement, params=parameters, auth=user)


def code(answer: httpx.Response) -> str | None:
    return answer.headers.get("X-ClickHouse-Exception-Code")


def test_each_user_has_a_password_of_its_own(url: str) -> None:
    for user in (("default", "mine"), BI, API):
        assert ask(url, user, "select 1").text == "1\n"
        assert code(ask(url, (user[0], "another"), "select 1")) == "516"
    assert code(ask(url, ("root", "mine"), "select 1")) == "516"


@pytest.mark.parametrize("header", ["Bearer a.b.c", "Basic", "Basic ZGVmYXVsdA", "Basic ////", "Negotiate x", "x"])
def test_other_credentials_than_name_and_password_are_refused(clickhouse_port: int, header: str) -> None:
    # This server's `default` has no password: what it cannot check it must not take for none.
    answer = HTTP.get(f"http://127.0.0.1:{clickhouse_port}/?query=select+1", headers={"Authorization": header})
    assert (answer.status_code, code(answer)) == (403, "516")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_may_not_write_neither_makes_nor_drops_a_user(url: str, method: str) -> None:
    owner = ("default", "mine")
    assert ask(url, owner, "create user kept identified by 'k'").status_code == 200
    for made in ("create user eve identified by 'x'", "drop user kept", "drop user if exists kept"):
        for level in ({}, {"readonly": "1"}, {"session_id": "of its owner"}):
            answer = HTTP.request(method, url, params={"query": made, **level}, auth=owner)
            assert (answer.status_code, code(answer)) == (500, "164"), made
            answer = ask(url, owner, made, **{"readonly": "2", **level})
            assert code(answer) == "164", made
    assert code(ask(url, ("eve", "x"), "select 1")) == "516"
    assert ask(url, ("kept", "k"), "select 1").text == "1\n"
    assert ask(url, owner, "drop user kept").status_code == 200
    assert code(HTTP.get(url, params={"query": "selec 1"}, auth=owner)) == "62"


def test_a_reader_without_a_password_does_not_exist_beside_one_with(tmp_path: Path) -> None:
    with running(tmp_path / "data", password="mine") as server:
        for name in ("api", "bi"):
            assert code(ask(server.url, (name, ""), "select 1")) == "516"


@pytest.mark.parametrize("user", [BI, API], ids=["bi", "api"])
@pytest.mark.parametrize(
    "statement",
    [
        "insert into marts.t values (3, 'three')",
        "insert into marts.t select 3, 'three'",
        "insert into function file('/tmp/never', 'CSV', 'a Int8') values (1)",
        "create table marts.mine (a Int8) engine = Memory",
        "create temporary table mine (a Int8)",
        "drop table marts.t",
        "alter table marts.t delete where 1",
        "truncate table marts.t",
        "optimize table marts.t",
        "set max_threads = 1",
        "set readonly = 0",
        "kill query where 1",
        "system flush logs",
        "grant select on *.* to bi",
        "select 1 into outfile '/tmp/never'",
        "select 1 settings readonly = 0",
        "select * from file('/etc/hostname', 'LineAsString')",
        "select file('/etc/hostname')",
        "select (select FILE('/etc/hostname'))",
        "with `file`('/etc/hostname') as f select f",
        "select * from url('http://127.0.0.1:1/', 'LineAsString')",
        "select * from remote('127.0.0.1', raw.t)",
        "select * from executable('id', 'TSV', 'a String')",
        "select * from Python(os)",
        "select * from sqlite('/etc/passwd', 't')",
        "select 1; drop table marts.t",
    ],
)
def test_a_reader_cannot_write_nor_reach_out_of_the_engine(url: str, user: tuple[str, str], statement: str) -> None:
    for session in ({}, {"session_id": "mine"}):
        answer = ask(url, user, statement, **session)
        assert code(answer) in ("164", "497", "228", "62"), answer.text
    assert ask(url, ("default", "mine"), "select count() from marts.t").text == "2\n"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "file"
    path.write_text("sesame")
    return path


@pytest.mark.parametrize("user", [BI, API], ids=["bi", "api"])
@pytest.mark.parametrize(
    "statement",
    [
        "select {file}",
        "select {file} as `a\nb`",
        "select * apply(x -> {file}) from marts.t",
        "select * apply file from (select '{path}' as x)",
        "select columns('x') apply(`file`) from (select '{path}' as x)",
        "select arrayMap(file, ['{path}'])",
        "select arrayMap(`fil\\x65`, ['{path}'])",
        "select arrayMap({{name:Identifier}}, ['{path}'])",
        "select number from numbers(3) order by number with fill from toUInt64({file})",
        "select b from values('a Int32, b String alias {quoted}', 1)",
        "select * from null('a Int32, b UInt64 default toUInt64({quoted})')",
        "describe null('a Int32, b UInt64 materialized toUInt64({quoted})')",
        "select * from generateRandom('a UInt64 alias toUInt64({quoted})')",
        "select * from eval('select {quoted}')",
        "select * from format(Values, 'a String', '({quoted})')",
        "explain table override values('a Int32', 1) columns (a UInt64 default toUInt64({file}))",
        "show tables from marts where toUInt64({file})",
        "show tables from marts limit toUInt64({file})",
        "show columns from marts.t where toUInt64({file})",
        "show index from marts.t where toUInt64({file})",
        "show clusters limit toUInt64({file})",
        "explain select {file}",
        "describe (select toUInt64({file}))",
    ],
)
def test_a_reader_reads_no_file_of_the_machine(url: str, user: tuple[str, str], statement: str, secret: Path) -> None:
    file = f"file('{secret}')"
    text = statement.format(file=file, quoted=file.replace("'", "\\'"), path=secret)
    answer = ask(url, user, text, param_name="file")
    assert answer.status_code != 200
    assert "sesame" not in answer.text
    # Else the statement would be no try of it.
    assert "Syntax error" not in answer.text


def test_the_engine_gives_readers_no_other_table_functions_than_were_looked_at(url: str) -> None:
    # Another one may take columns or a query as a text, as those in definer.TABLES_OF_TEXT do.
    query = "select name from system.table_functions where allow_readonly and name not ilike 'mergetree%'"
    listed = ask(url, API, query)
    assert set(listed.text.lower().split()) == TABLES_OF_TEXT | {
        *("cluster", "clusterallreplicas", "generateseries", "generate_series", "merge", "numbers", "numbers_mt"),
        *("primes", "sqlstandardvalues", "view", "viewifpermitted"),
    }


@pytest.mark.parametrize(
    "statement",
    [
        "select * from raw.t",
        "select a from marts.t union all select a from raw.t",
        "with stolen as (select a from raw.t) select * from stolen",
        "select (select max(a) from raw.t)",
        "select throwIf((select max(a) from raw.t) = 41, 'told by an error')",
        "select * from marts.t where a in (select a from raw.t)",
        "select 41 in raw.t",
        "select * from marts.t join raw.t using a",
        "select * from merge('raw', '.*')",
        "select * from merge(currentDatabase(), 't')",
        "select * from view(select * from raw.t)",
        "select * from viewExplain('EXPLAIN', '', (select * from raw.t))",
        "select * from mergeTreeIndex('raw', 't')",
        "select * from loop('raw', 't')",
        "select * from dictionary('raw.d')",
        "select * from raw.d",
        "select dictGet('raw.d', 'v', toUInt64(1))",
        "select joinGet('raw.j', 'v', toInt32(1))",
        "select toUInt64(concat('v', toString(dictGet('raw.d', 'v', toUInt64(1)))))",
        "select toUInt64(concat('v', toString(joinGet('raw.j', 'v', toInt32(1)))))",
        "select arrayMap(dictGet, ['raw.d'], ['v'], [toUInt64(1)])",
        "show tables where throwIf((select max(a) from raw.t) = 41, 'told by an error')",
        "show tables from marts where 41 in raw.t",
        "select * from marts.through",
        "select * from marts.buffer",
        "select * from marts.plus_through(n = 0)",
        "select * from raw.plus(n = 0)",
        "select hasColumnInTable('raw', 't', 'a')",
        "select * from system.processes",
        "select * from system.query_log",
        "select * from SYSTEM.query_log",
        "select * from system.`query_log`",
        "select * from _embedded.query_log",
        "select * from merge('system', 'query_log')",
        "describe table raw.t",
        "describe (select * from raw.t)",
        "show tables from raw",
        "show create table raw.t",
        "exists raw.t",
        "show processlist",
        "show grants",
        "show users",
        "explain select * from raw.t",
        "explain estimate select * from raw.t",
        "check table raw.t",
    ],
)
def test_bi_reads_nothing_of_other_databases(url: str, statement: str) -> None:
    answer = ask(url, BI, statement)
    assert answer.status_code != 200, answer.text
    assert "41" not in answer.text.replace(statement, "").replace("= 41", "").replace("41_UInt8", "")
    assert "told by an error" not in answer.text.replace(statement, "")


def test_names_of_other_databases_are_not_shown_to_bi(url: str) -> None:
    for table in ("tables", "columns"):
        assert ask(url, BI, f"select distinct database from system.{table}").text == "marts\n"
    assert ask(url, BI, "select name from system.databases").text == "marts\n"
    assert ask(url, BI, "show databases").text == "marts\n"
    assert ask(url, BI, "select table_schema from information_schema.tables where table_schema = 'raw'").text == ""


@pytest.mark.parametrize(
    "name", ["select", "filter", "additional_result_filter", "order", "sort", "url_base", "format_schema"]
)
def test_no_setting_carries_an_expression_past_the_rights_of_bi(url: str, name: str) -> None:
    assert code(ask(url, BI, "select a from marts.t", **{name: "(select max(a) from raw.t)"})) == "164"
    assert ask(url, BI, f"select a from marts.t settings {name} = '(select max(a) from raw.t)'").status_code != 200


@pytest.mark.parametrize("database", ["raw", "system", "_embedded"])
def test_another_current_database_gives_bi_no_more(url: str, database: str) -> None:
    for statement in ("select * from t", "select * from query_log", "show tables", "describe t"):
        assert ask(url, BI, statement, database=database).status_code != 200


def test_a_name_that_comes_as_a_parameter_gives_bi_no_more(url: str) -> None:
    whole = {"param_t": "system.query_log"}
    assert ask(url, BI, "select * from {t:Identifier}", **whole).status_code != 200
    parts = {"param_d": "system", "param_t": "query_log"}
    assert ask(url, BI, "select * from {d:Identifier}.{t:Identifier}", **parts).status_code != 200
    other = {"param_d": "raw", "param_t": "t"}
    assert ask(url, BI, "select * from {d:Identifier}.{t:Identifier}", **other).status_code != 200
    own = {"param_d": "marts", "param_t": "t"}
    assert ask(url, BI, "select count() from {d:Identifier}.{t:Identifier}", **own).text == "2\n"


def test_bi_reads_its_own_database_as_anybody(url: str) -> None:
    assert ask(url, BI, "select b from t order by a desc").text == "two\none\n"
    assert ask(url, BI, "select a from marts.on_purpose").text == "42\n"
    assert ask(url, BI, "select a from marts.plus(n = 2)").text == "43\n"
    assert ask(url, BI, "select a from marts.plus(n = {n:Int32})", param_n="3").text == "44\n"
    assert ask(url, BI, "select a, count() from t group by a with totals order by a").text == "1\t1\n2\t1\n\n0\t2\n"
    parameters = {"param_a": "2", "param_b": "it's \\ {x}"}
    assert ask(url, BI, "select a, {b:String} from t where a = {a:Int32}", **parameters).text == "2\tit\\'s \\\\ {x}\n"
    assert ask(url, BI, "select a from t order by a format JSONCompact").json()["data"] == [[1], [2]]
    assert ask(url, BI, "show tables like 't'").text == "t\n"
    assert ask(url, BI, "describe t").text.startswith("a\tInt32")
    assert ask(url, BI, "exists marts.t").text == "1\n"
    assert "MergeTree" in ask(url, BI, "show create table t").text
    assert ask(url, BI, "select count() from numbers(10)").text == "10\n"
    assert ask(url, BI, "select 1", max_threads="1", max_execution_time="5").text == "1\n"


def test_api_reads_all_databases(url: str) -> None:
    assert ask(url, API, "select a from raw.t").text == "41\n"
    assert ask(url, API, "select name from system.tables where database = 'raw' and name = 't'").text == "t\n"


@pytest.mark.parametrize("user", [BI, API])
def test_a_reader_is_told_the_id_that_it_gave_its_query(url: str, user: tuple[str, str]) -> None:
    name = f"it's {user[0]}'s"
    for parameters in ({}, {"param_n": "1"}):
        query = "select queryID(), query_id() as q, {n:Int32}" if parameters else "select queryID(), query_id() as q, 1"
        answer = ask(url, user, query, query_id=name, default_format="JSONCompact", **parameters)
        assert answer.json()["data"] == [[name, name, 1]], answer.text
        assert answer.json()["meta"][0]["name"] == "queryID()"


def test_api_finds_queries_by_their_ids_and_bi_finds_none(url: str) -> None:
    own = "select query_id from system.processes where query_id = queryID()"
    assert ask(url, API, own, query_id="api's", default_format="TSVRaw").text == "api's\n"
    ask(url, ("default", "mine"), "select 1", query_id="somebody's")
    ask(url, ("default", "mine"), "system flush logs")
    logged = "select count() from system.query_log where query_id = 'somebody\\'s' and type = 'QueryFinish'"
    assert ask(url, API, logged).text == "1\n"
    for table in ("system.processes", "system.query_log", "_embedded.processes", "_embedded.query_log"):
        assert code(ask(url, BI, f"select count() from {table}")) == "497", table


@pytest.mark.parametrize("user", [BI, API])
@pytest.mark.parametrize(
    ("statement", "at"),
    [
        ("selec 1", "position 1 (selec)"),
        ("select 1 frm x", "position 14 (x)"),
        ("select 'a' from (select 2", "position 26 (end of query)"),
        ("select 'a", "position 8 ('a)"),
        ("selec file('/etc/hostname')", "position 1 (selec)"),
        ("selec '\\'), file(\\'/etc/hostname'", "position 1 (selec)"),
    ],
)
def test_a_reader_is_told_where_its_statement_is_wrong(
    url: str, user: tuple[str, str], statement: str, at: str
) -> None:
    for session in ({}, {"session_id": "wrong"}):
        answer = ask(url, user, statement, **session)
        assert (answer.status_code, code(answer)) == (400, "62"), answer.text
        # As the user who may do all is told.
        assert at in answer.text and answer.text == ask(url, ("default", "mine"), statement).text


def test_a_reader_s_use_lasts_in_its_session_and_no_further(url: str) -> None:
    assert ask(url, API, "use raw", session_id="readers").status_code == 200
    assert ask(url, API, "select a from t", session_id="readers").text == "41\n"
    assert ask(url, API, "select currentDatabase()", session_id="readers", database="marts").text == "marts\n"
    assert ask(url, API, "select currentDatabase()").text == "default\n"
    assert code(ask(url, API, "use nowhere", session_id="readers")) == "81"
    assert code(ask(url, API, "insert into t values (1)", session_id="readers")) == "164"
    assert code(ask(url, API, "set max_threads = 1", session_id="readers")) == "164"
    assert ask(url, BI, "use default", session_id="readers").status_code == 200
    assert ask(url, BI, "select max(a) from t", session_id="readers").status_code != 200
    assert ask(url, BI, "use marts", session_id="readers").status_code == 200
    for session in ({}, {"session_id": "readers"}):
        assert code(ask(url, BI, "use raw", **session)) == "497"
    assert ask(url, BI, "select max(a) from t", session_id="readers").text == "2\n"


def test_a_reader_s_session_goes_on_when_its_database_is_gone(url: str) -> None:
    owner = ("default", "mine")
    assert ask(url, owner, "create database passing").status_code == 200
    assert ask(url, API, "use passing", session_id="passing").status_code == 200
    assert ask(url, owner, "drop database passing").status_code == 200
    assert code(ask(url, API, "select 1", session_id="passing")) == "81"
    assert ask(url, API, "use raw", session_id="passing").status_code == 200
    assert ask(url, API, "select a from t", session_id="passing").text == "41\n"


def with_table(
    url: str, user: tuple[str, str], structure: str, form: str = "TSV", data: str = "1\n2\n"
) -> httpx.Response:
    files = {"given": ("given", data)}
    parameters = {"query": "select * from given order by 1", "given_structure": structure, "given_format": form}
    return HTTP.post(url, params=parameters, files=files, auth=user)


def test_a_table_that_api_brings_reads_no_file_of_the_machine(url: str, secret: Path) -> None:
    file = f"file('{secret}')"
    for kind in ("default", "materialized", "alias", "ephemeral"):
        structure = f"a Int32, b UInt64 {kind} toUInt64({file})"
        assert code(told := with_table(url, API, structure, data="1\t2\n")) == "62", told.text
        assert "sesame" not in told.text
    for structure in (
        f"a Int32 ttl toDateTime({file})",
        f"a Int32 codec(ZSTD(toUInt8({file})))",
        f"a FixedString(toUInt8({file}))",
        f"a AggregateFunction(quantile(toUInt8({file})), Int32)",
        f"a Tuple(b Int32 default {file})",
        f"a Int32, constraint c check {file} = 'x'",
        f"a Int32, index i {file} type minmax",
        f"a Int32, projection p (select {file})",
        f"a Int32); select {file}; select (1",
        f"a Int32) as select {file} --",
    ):
        told = with_table(url, API, structure, data="1\n")
        assert told.status_code != 200 and "sesame" not in told.text, structure
    for form in ("Values", "values", "Template", "Regexp", "Protobuf", "CapnProto", "MySQLDump", "nothing"):
        assert code(told := with_table(url, API, "a String", form=form, data=f"({file})")) == "73", told.text
    assert with_table(url, API, "a String", data=f"{file}\n").text == file.replace("'", "\\'") + "\n"


def test_api_may_bring_tables_and_nothing_but_columns(url: str) -> None:
    assert with_table(url, API, "a Int32").text == "1\n2\n"
    assert with_table(url, API, "a Int32, b Array(String)", data="1\t['x']\n").text == "1\t['x']\n"
    assert code(with_table(url, BI, "a Int32")) == "164"
    secret = "file('/etc/hostname', 'LineAsString')"
    for structure in (
        f"a Int32) engine = Memory as (select * from {secret}",
        "a Int32) engine = File(TSV, 'x'",
        "a Int32, constraint c check a = 1",
    ):
        assert with_table(url, API, structure).status_code != 200
    assert code(with_table(url, API, "a Int32, b UInt64 default 41", form="JSONEachRow", data='{"a": 1}')) == "62"
    quoted = "a Enum8('it\\'s' = 1, 'a\\nb' = 2, '\\\\' = 3)"
    assert with_table(url, API, quoted, form="JSONEachRow", data='{"a": "it\'s"} {"a": 2} {"a": 3}').text == (
        "it\\'s\na\\nb\n\\\\\n"
    )
    types = "`a b` LowCardinality(Nullable(String)), c Nested(d Array(Date), e Decimal(9, 2)), f DateTime64(3, 'UTC')"
    given = with_table(url, API, types, form="JSONEachRow", data='{"a b": null, "c.d": [[]], "c.e": [1.5]}').text
    assert given == "\\N\t[[]]\t[1.5]\t1970-01-01 00:00:00.000\n"
    assert code(with_table(url, API, "a Int32", form="TSV settings max_threads = 1")) == "73"


def test_nothing_of_a_reader_s_statement_is_left_behind(url: str) -> None:
    for statement in ("select * from marts.t", "select * from raw.t", "select nothing from marts.t"):
        ask(url, BI, statement)
    listed = ask(url, ("default", "mine"), "select name from system.tables where database = '_embedded' order by name")
    assert listed.text.split() == ["processes", "query_log"]


def test_users_made_by_sql_may_log_in_and_nothing_more_also_after_a_restart(tmp_path: Path) -> None:
    owner, made = ("default", "mine"), ("it's", "a 'word'")
    hashed = hashlib.sha256(b"of hers").hexdigest()

    def tried(url: str) -> None:
        assert ask(url, made, "select 1").text == "1\n"
        assert ask(url, ("b`c", "of hers"), "select count() from numbers(3)").text == "3\n"
        for user, password in ((made[0], ""), ("b`c", hashed), ("nobody", "")):
            assert code(ask(url, (user, password), "select 1")) == "516"
        assert code(HTTP.get(f"{url}/?query=select+1&user=b%60c&password=%FF")) == "516"
        for statement in ("select * from marts.t", "describe marts.t", "show tables from marts", "drop user x"):
            assert code(ask(url, made, statement)) in ("497", "164"), statement
        assert "marts" not in ask(url, made, "show databases").text

    with running(tmp_path / "data", password="mine") as server:
        for statement in ("create database marts", "create table marts.t (a Int8) engine = Memory"):
            assert ask(server.url, owner, statement).status_code == 200
        answer = ask(server.url, owner, "create user 'it\\'s' /* by */ identified by 'a \\'word\\'';")
        assert answer.status_code == 200, answer.text
        hers = f"create user if not exists `b``c` identified with sha256_hash by '{hashed}'"
        assert ask(server.url, owner, hers).status_code == ask(server.url, owner, hers).status_code == 200
        tried(server.url)
        assert code(ask(server.url, owner, "create user `b``c`")) == "493"
        assert code(ask(server.url, owner, "create user or replace default identified by 'x'")) == "493"
        assert code(ask(server.url, owner, "drop user default")) == "495"
        assert code(ask(server.url, owner, "create user x settings max_threads = 1")) == "514"
        assert a_password_is_nowhere(tmp_path, b"a 'word'")
    with running(tmp_path / "data", password="mine") as server:
        tried(server.url)
        assert ask(server.url, owner, "drop user `it's`, `b``c`").status_code == 200
        assert code(ask(server.url, made, "select 1")) == "516"
        assert code(ask(server.url, owner, "drop user `it's`")) == "192"
        assert ask(server.url, owner, "drop user if exists `it's`").status_code == 200


def a_password_is_nowhere(folder: Path, password: bytes) -> bool:
    return not any(password in file.read_bytes() for file in folder.glob("*") if file.is_file())


def test_a_dictionary_of_a_table_here_is_read_with_its_maker_s_password(url: str) -> None:
    owner = ("default", "mine")
    made = "create dictionary marts.d (a Int32, b String) primary key a layout(hashed()) lifetime(1) "
    source = "source(clickhouse(user 'default' password 'mine' query 'select a, b from marts.t'))"
    assert ask(url, owner, made + source).status_code == 200
    assert ask(url, owner, "select dictGet('marts.d', 'b', 2)").text == "two\n"
    assert ask(url, owner, "drop dictionary marts.d").status_code == 200


def test_a_query_of_bi_takes_no_more_than_its_limits(url: str) -> None:
    def limits(name: str, **wanted: str) -> dict[str, str]:
        found = asked_of(users_of({})[name], "POST", wanted, {}).settings
        return {setting: found[setting] for setting in BI_LIMITS if setting in found}

    theirs = {name: str(limit) for name, limit in BI_LIMITS.items()}
    assert limits("bi") == theirs and limits("default") == limits("api") == {}
    for beyond in ("0", "-1", "1e300", "inf", "nan", "18446744073709551615"):
        assert limits("bi", **dict.fromkeys(BI_LIMITS, beyond)) == theirs
    assert limits("bi", **dict.fromkeys(BI_LIMITS, "7")) == dict.fromkeys(BI_LIMITS, "7")
    for clause in (f"{name} = {limit + 1}" for name, limit in BI_LIMITS.items()):
        assert code(ask(url, BI, f"select a from marts.t settings {clause}")) == "164"
        assert code(ask(url, BI, f"set {clause}", session_id="mine")) == "164"
    assert ask(url, BI, "select getSetting('max_execution_time')").text == f"{BI_LIMITS['max_execution_time']}\n"
    endless = "select sum(cityHash64(number)) from numbers(100000000000)"
    greedy = "select length(groupArray(number)) from numbers(20000000)"
    for inner in ("", " settings max_execution_time = 0, max_memory_usage = 0"):
        assert code(ask(url, BI, f"select * from ({endless}{inner})", max_execution_time="1")) == "159"
        assert code(ask(url, BI, f"select * from ({greedy}{inner})", max_memory_usage="50000000")) == "241"
