"""What entries of one session may follow each other, and which rows are as they say."""

from __future__ import annotations

import pytest

from archiver.evidence.audit.fold import Fold, Pair, Row, Step, compare

A, B, C = (1, b"a" * 32), (2, b"b" * 32), (1, b"c" * 32)


def step(event: str, state: str, *files: Pair, count: int | None = None) -> Step:
    return Step("entry 7", event, state, None if count is not None else frozenset(files), len(files) if count is None else count)


def folded(*steps: Step) -> tuple[Fold, list[str]]:
    fold = Fold()
    return fold, [wrong for each in steps for wrong in fold.take(each)]


SETTLED = step("settled", "archived", A)
REOPENED = step("reopened", "pending", A)

RIGHT = [
    [SETTLED],
    [step("adopted", "failed"), step("accepted", "failed"), step("unaccepted", "failed"), step("reopened", "pending")],
    [step("settled", "unavailable"), step("settled", "unavailable"), step("settled", "archived", A)],
    [step("settled", "unavailable"), step("settled", "failed", A)],
    [SETTLED, REOPENED, step("settled", "archived", A, B)],
    [SETTLED, REOPENED, step("repaired", "pending", A), step("settled", "cancelled", A)],
    [SETTLED, step("damaged", "archived", A), step("repaired", "archived", A), step("described", "archived", A)],
    [step("described", "cancelled"), step("reopened", "pending"), step("settled", "failed")],
    [step("repaired", "failed", A)],
    [step("settled", "archived", count=3), step("reopened", "pending", count=3), step("settled", "archived", count=4)],
    [SETTLED, REOPENED, step("settled", "archived", count=2)],
]

WRONG = [
    [SETTLED, SETTLED],
    [SETTLED, step("settled", "failed", A)],
    [SETTLED, step("adopted", "archived", A)],
    [SETTLED, step("described", "failed", A)],
    [SETTLED, step("accepted", "failed", A)],
    [SETTLED, step("repaired", "failed", A)],
    [SETTLED, REOPENED, REOPENED],
    [SETTLED, REOPENED, step("described", "archived", A)],
    [SETTLED, step("described", "archived", C)],
    [SETTLED, step("described", "archived")],
    [SETTLED, REOPENED, step("settled", "archived", B)],
    [step("settled", "unavailable"), step("settled", "cancelled")],
    [step("settled", "unavailable"), step("accepted", "unavailable")],
    [step("settled", "pending")],
    [step("reopened", "archived", A)],
    [step("settled", "archived", count=3), step("described", "archived", count=2)],
    [step("settled", "archived", count=3), step("described", "archived", A, B)],
    [step("settled", "archived", A, B), step("described", "archived", count=1)],
]


@pytest.mark.parametrize("steps", RIGHT)
def test_what_may_follow(steps: list[Step]) -> None:
    assert folded(*steps)[1] == []


@pytest.mark.parametrize("steps", WRONG)
def test_what_contradicts(steps: list[Step]) -> None:
    assert folded(*steps)[1] != []


def test_a_file_that_was_there_stays_whatever_comes_later() -> None:
    fold, _ = folded(step("settled", "archived", A, B), step("described", "archived", C))
    assert fold.files == {A, B, C}


def test_damage_is_known_until_it_is_repaired() -> None:
    fold, _ = folded(SETTLED, step("damaged", "archived", A), step("described", "archived", A))
    assert fold.damaged
    list(fold.take(step("repaired", "archived", A)))
    assert not fold.damaged


@pytest.mark.parametrize(
    ("steps", "row", "names"),
    [
        ([SETTLED], Row("archived", frozenset({A})), []),
        ([SETTLED, REOPENED], Row("claimed", frozenset({A, B})), []),
        ([SETTLED], Row("failed", frozenset({A})), ["row_differs"]),
        ([SETTLED], Row("pending", frozenset({A})), ["row_differs"]),
        ([SETTLED, REOPENED], Row("archived", frozenset({A})), ["row_differs"]),
        ([SETTLED, REOPENED], Row("pending", frozenset()), ["row_differs"]),
        ([SETTLED], Row("archived", frozenset({C})), ["row_differs"]),
        ([SETTLED], Row("archived", frozenset({A, B})), ["row_unrecorded"]),
        ([step("settled", "archived", count=2)], Row("archived", frozenset({A, B})), []),
        ([step("settled", "archived", count=2)], Row("archived", frozenset({A})), ["row_differs"]),
        ([step("settled", "archived", count=1)], Row("archived", frozenset({A, B})), ["row_unrecorded"]),
    ],
)
def test_rows_that_are_as_the_ledger_says_and_others(steps: list[Step], row: Row, names: list[str]) -> None:
    assert [name for name, _ in compare(folded(*steps)[0], row)] == names
