"""The public suite of dbt's cross-database macros and types, as it is."""

from __future__ import annotations

import importlib

import pytest

#: How the public suite is written; a later pytest will want it otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Class-scoped fixtures defined as instance methods")

#: Modules of `dbt.tests.adapter.utils` and their classes.
BASES = {
    "data_types.test_type_boolean": ["BaseTypeBoolean"],
    "data_types.test_type_float": ["BaseTypeFloat"],
    "data_types.test_type_int": ["BaseTypeInt"],
    "data_types.test_type_numeric": ["BaseTypeNumeric"],
    "data_types.test_type_string": ["BaseTypeString"],
    "data_types.test_type_timestamp": ["BaseTypeTimestamp"],
    "test_any_value": ["BaseAnyValue"],
    "test_array_construct": ["BaseArrayConstruct"],
    "test_bool_or": ["BaseBoolOr"],
    "test_cast": ["BaseCast"],
    "test_cast_bool_to_text": ["BaseCastBoolToText"],
    "test_concat": ["BaseConcat"],
    "test_current_timestamp": ["BaseCurrentTimestampNaive"],
    "test_date_trunc": ["BaseDateTrunc"],
    "test_equals": ["BaseEquals"],
    "test_escape_single_quotes": ["BaseEscapeSingleQuotesQuote", "BaseEscapeSingleQuotesBackslash"],
    "test_except": ["BaseExcept"],
    "test_generate_series": ["BaseGenerateSeries"],
    "test_get_powers_of_two": ["BaseGetPowersOfTwo"],
    "test_hash": ["BaseHash"],
    "test_intersect": ["BaseIntersect"],
    "test_length": ["BaseLength"],
    "test_null_compare": ["BaseMixedNullCompare", "BaseNullCompare"],
    "test_position": ["BasePosition"],
    "test_right": ["BaseRight"],
    "test_safe_cast": ["BaseSafeCast"],
    "test_string_literal": ["BaseStringLiteral"],
}

for module, classes in BASES.items():
    for base in classes:
        name = "Test" + base.removeprefix("Base")
        found = getattr(importlib.import_module(f"dbt.tests.adapter.utils.{module}"), base)
        globals()[name] = type(name, (found,), {"__module__": __name__})
del module, classes, base, name, found
