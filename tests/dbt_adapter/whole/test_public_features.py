"""More of the public suite as it is: the same ground in more ways."""

from __future__ import annotations

import pytest
from dbt.tests.adapter.aliases.test_aliases import BaseAliasErrors, BaseAliases, BaseSameAliasDifferentDatabases
from dbt.tests.adapter.basic.test_incremental import BaseIncrementalNotSchemaChange
from dbt.tests.adapter.column_types.test_column_types import BasePostgresColumnTypes
from dbt.tests.adapter.concurrency.test_concurrency import BaseConcurrency
from dbt.tests.adapter.dbt_clone.test_dbt_clone import BaseClonePossible, BaseCloneSameTargetAndState
from dbt.tests.adapter.dbt_debug.test_dbt_debug import BaseDebugPostgres
from dbt.tests.adapter.dbt_show.test_dbt_show import BaseShowLimit
from dbt.tests.adapter.empty.test_empty import BaseTestEmpty
from dbt.tests.adapter.hooks.test_model_hooks import BaseDuplicateHooksInConfigs, BaseHooksRefsOnSeeds
from dbt.tests.adapter.persist_docs.test_persist_docs import BasePersistDocs, BasePersistDocsCommentOnQuotedColumn
from dbt.tests.adapter.query_comment.test_query_comment import (
    BaseEmptyQueryComments,
    BaseMacroArgsQueryComments,
    BaseMacroInvalidQueryComments,
    BaseNullQueryComments,
    BaseQueryComments,
)
from dbt.tests.adapter.relations.test_changing_relation_type import BaseChangeRelationTypeValidator
from dbt.tests.adapter.simple_copy.test_simple_copy import EmptyModelsArentRunBase, SimpleCopyBase
from dbt.tests.adapter.simple_seed.test_seed import BaseTestEmptySeed
from dbt.tests.adapter.unit_testing.test_case_insensitivity import BaseUnitTestCaseInsensivity
from dbt.tests.adapter.unit_testing.test_quoted_reserved_word_column_names import (
    BaseUnitTestQuotedReservedWordColumnNames,
)
from dbt.tests.adapter.unit_testing.test_types import BaseUnitTestingVarcharFixtureNoTruncation

#: How the public suite is written; a later pytest will want it otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Class-scoped fixtures defined as instance methods")

BASES = [
    BaseAliases,
    BaseAliasErrors,
    BaseSameAliasDifferentDatabases,
    BaseIncrementalNotSchemaChange,
    BasePostgresColumnTypes,
    BaseConcurrency,
    BaseClonePossible,
    BaseCloneSameTargetAndState,
    BaseDebugPostgres,
    BaseShowLimit,
    BaseTestEmpty,
    BaseDuplicateHooksInConfigs,
    BaseHooksRefsOnSeeds,
    BasePersistDocs,
    BasePersistDocsCommentOnQuotedColumn,
    BaseEmptyQueryComments,
    BaseMacroArgsQueryComments,
    BaseMacroInvalidQueryComments,
    BaseNullQueryComments,
    BaseQueryComments,
    BaseChangeRelationTypeValidator,
    EmptyModelsArentRunBase,
    SimpleCopyBase,
    BaseTestEmptySeed,
    BaseUnitTestCaseInsensivity,
    BaseUnitTestQuotedReservedWordColumnNames,
    BaseUnitTestingVarcharFixtureNoTruncation,
]

for base in BASES:
    name = "Test" + base.__name__.removeprefix("Base").removeprefix("Test")
    globals()[name] = type(name, (base,), {"__module__": __name__})
del base, name
