"""SQL files with named parameters."""

from __future__ import annotations

import pytest

from archiver.postgres.statements import Statement
from archiver.queue.sql import sql


def test_each_name_has_one_number_in_the_order_of_first_places() -> None:
    statement = Statement.parse("x", "SELECT :b::text, :a_2, :b WHERE x >= :c")
    assert statement.text == "SELECT $1::text, $2, $1 WHERE x >= $3"
    assert statement.parameters == ("b", "a_2", "c")
    assert statement.arguments({"c": 3, "a_2": 2, "b": 1}) == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1::integer, ARRAY[1, 2][1 : n]",
        "SELECT ':a', 'it''s :a', '12:30:a'",
        'SELECT ":a", "b "" :a"',
        "SELECT 1 -- :a, it's\n",
        "SELECT 1 /* :a\n:b */",
        "SELECT '{}'::text[], x ->> 'a:b'",
    ],
)
def test_a_colon_that_means_something_else_is_left_alone(text: str) -> None:
    assert Statement.parse("x", text) == Statement("x", text, ())


@pytest.mark.parametrize("values", [{}, {"a": 1, "b": 2}, {"b": 1}])
def test_a_missing_or_unknown_parameter_is_an_error_of_the_program(values: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"x: missing or unknown parameters: [ab]"):
        Statement.parse("x", "SELECT :a").arguments(values)


def test_a_statement_is_read_once() -> None:
    assert sql("budget/draw") is sql("budget/draw")
    assert sql("budget/draw").parameters == ("budget", "windows", "limits")


def test_no_statement_has_a_numbered_parameter() -> None:
    assert [one.name for one in sql if one.text.count("$") > 0 and not one.parameters] == []
