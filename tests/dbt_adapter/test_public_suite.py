"""The public suite as it is: what dbt does with any database."""

from __future__ import annotations

from typing import Any

import pytest
from dbt.tests.adapter.aliases.test_aliases import BaseSameAliasDifferentSchemas
from dbt.tests.adapter.basic.test_adapter_methods import BaseAdapterMethod
from dbt.tests.adapter.basic.test_base import BaseSimpleMaterializations
from dbt.tests.adapter.basic.test_empty import BaseEmpty
from dbt.tests.adapter.basic.test_ephemeral import BaseEphemeral
from dbt.tests.adapter.basic.test_generic_tests import BaseGenericTests
from dbt.tests.adapter.basic.test_incremental import BaseIncremental
from dbt.tests.adapter.basic.test_singular_tests import BaseSingularTests
from dbt.tests.adapter.basic.test_singular_tests_ephemeral import BaseSingularTestsEphemeral
from dbt.tests.adapter.basic.test_snapshot_check_cols import BaseSnapshotCheckCols
from dbt.tests.adapter.basic.test_snapshot_timestamp import BaseSnapshotTimestamp
from dbt.tests.adapter.basic.test_table_materialization import BaseTableMaterialization
from dbt.tests.adapter.basic.test_validate_connection import BaseValidateConnection
from dbt.tests.adapter.dbt_clone.test_dbt_clone import BaseCloneNotPossible
from dbt.tests.adapter.dbt_debug.test_dbt_debug import BaseDebug
from dbt.tests.adapter.dbt_show.test_dbt_show import BaseShowSqlHeader
from dbt.tests.adapter.empty.test_empty import BaseTestEmptyInlineSourceRef
from dbt.tests.adapter.ephemeral.test_ephemeral import BaseEphemeralErrorHandling
from dbt.tests.adapter.hooks.test_run_hooks import BaseAfterRunHooks
from dbt.tests.adapter.incremental.test_incremental_microbatch import BaseMicrobatch
from dbt.tests.adapter.incremental.test_incremental_predicates import BaseIncrementalPredicates
from dbt.tests.adapter.query_comment.test_query_comment import BaseMacroQueryComments
from dbt.tests.adapter.store_test_failures_tests.test_store_test_failures import BaseStoreTestFailuresLimit
from dbt.tests.adapter.unit_testing.test_invalid_input import BaseUnitTestInvalidInput
from dbt.tests.adapter.utils.test_listagg import BaseListagg
from dbt.tests.adapter.utils.test_source_freshness_custom_info import BaseCalculateFreshnessMethod
from dbt.tests.adapter.utils.test_validate_sql import BaseValidateSqlMethod
from dbt.tests.util import run_dbt

#: How the public suite is written; a later pytest will want it otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Class-scoped fixtures defined as instance methods")


class TestAdapterMethods(BaseAdapterMethod):
    pass


class TestAliases(BaseSameAliasDifferentSchemas):
    pass


class TestSimpleMaterializations(BaseSimpleMaterializations):
    pass


class TestEmptyProject(BaseEmpty):
    pass


class TestEphemeral(BaseEphemeral):
    pass


class TestGenericTests(BaseGenericTests):
    pass


class TestIncremental(BaseIncremental):
    pass


class TestSingularTests(BaseSingularTests):
    pass


class TestSingularTestsOfEphemerals(BaseSingularTestsEphemeral):
    pass


class TestSnapshotByColumns(BaseSnapshotCheckCols):
    pass


class TestSnapshotByTime(BaseSnapshotTimestamp):
    pass


class TestTable(BaseTableMaterialization):
    pass


class TestConnection(BaseValidateConnection):
    pass


class TestClone(BaseCloneNotPossible):
    pass


class TestDebug(BaseDebug):
    def test_debug_finds_the_server(self, project: Any) -> None:
        run_dbt(["debug", "--connection"])


class TestShow(BaseShowSqlHeader):
    pass


class TestEmptyFlag(BaseTestEmptyInlineSourceRef):
    pass


class TestEphemeralsThatFail(BaseEphemeralErrorHandling):
    pass


class TestHooksAfterARun(BaseAfterRunHooks):
    pass


class TestMicrobatch(BaseMicrobatch):
    @pytest.fixture(scope="class")
    @classmethod
    def insert_two_rows_sql(cls, project: Any) -> str:
        values = "(4, '2020-01-04 00:00:00'), (5, '2020-01-05 00:00:00')"
        return f"insert into {project.test_schema}.input_model (id, event_time) values {values}"


class TestPredicates(BaseIncrementalPredicates):
    pass


class TestQueryComments(BaseMacroQueryComments):
    pass


class TestStoredFailures(BaseStoreTestFailuresLimit):
    pass


class TestUnitTestsThatAreWrong(BaseUnitTestInvalidInput):
    pass


class TestListagg(BaseListagg):
    pass


class TestFreshness(BaseCalculateFreshnessMethod):
    pass


class TestValidateSql(BaseValidateSqlMethod):
    pass


class TestDocs:
    """The public test compares with a catalogue of Postgres; this one with what ClickHouse says of the same project."""

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> dict[str, str]:
        return {
            "model.sql": "{{ config(materialized='view') }} select * from {{ ref('seed') }}",
            "second_model.sql": "{{ config(schema='elsewhere') }} select [first_name] as names from {{ ref('seed') }}",
            "schema.yml": "models: [{name: model, description: 'words', columns: [{name: id, description: 'a key'}]}]",
        }

    @pytest.fixture(scope="class")
    @classmethod
    def seeds(cls) -> dict[str, str]:
        return {"seed.csv": "id,first_name,at\n1,Ada,2024-01-01 00:00:00\n2,Bob,2024-01-02 00:00:00\n"}

    def test_the_catalogue_is_what_the_server_says(self, project: Any) -> None:
        run_dbt(["seed"])
        run_dbt(["run"])
        catalogue = run_dbt(["docs", "generate"])
        assert set(catalogue.nodes) == {"model.test.model", "model.test.second_model", "seed.test.seed"}
        for name, node in catalogue.nodes.items():
            table = name.split(".")[-1]
            found = project.run_sql(
                "select name, type from system.columns where table = "
                f"'{table}' and database = '{node.metadata.schema}' order by position",
                fetch="all",
            )
            assert [(column.name, column.type) for column in node.columns.values()] == [tuple(row) for row in found]
            assert found
