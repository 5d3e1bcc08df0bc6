from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.system.conftest import Program

HOSTILE = {
    "empty": "",
    "10 kB long": "x" * 10_000,
    "201 long": "x" * 201,
    "a newline": "a\nb",
    "a path": "../../etc/passwd",
    "SQL": "'; DROP TABLE archive_queue; --",
    "a blank": "a b",
    "a leading blank": " a",
    "letters of other alphabets": "séance",
    "digits of other alphabets": "١٢٣",
    "an escape sequence": "\x1b[2Jx",
    "a final newline": "a\n",
}


async def test_ids_are_enqueued_from_arguments_a_file_and_standard_input(archiver: Program, sql: Any) -> None:
    assert (await archiver("enqueue", "a1", "a2")).stdout == "2 new, 0 already known, 0 rejected\n"
    (archiver.folder / "ids").write_bytes(b"f1\nf2")
    assert (await archiver("enqueue", "--file", "ids", "a1")).stdout == "2 new, 1 already known, 0 rejected\n"
    assert (await archiver("enqueue", "--file", "-", stdin=b"s1\ns2\n")).stdout == "2 new, 0 already known, 0 rejected\n"
    assert (await archiver("enqueue", stdin=b"p1\np1\n")).stdout == "1 new, 1 already known, 0 rejected\n"
    assert (await archiver("enqueue", stdin=b"")).stdout == "0 new, 0 already known, 0 rejected\n"
    found = {row["session_id"] for row in await sql.fetch("SELECT session_id FROM archive_sessions")}
    assert found == {"a1", "a2", "f1", "f2", "s1", "s2", "p1"}


async def test_a_closed_standard_input_is_an_empty_one(archiver: Program) -> None:
    result = await archiver.shell("archiver enqueue <&-")
    assert (result.code, result.stdout, result.stderr) == (0, "0 new, 0 already known, 0 rejected\n", "")


async def test_byte_order_mark_line_ends_comments_and_blank_lines_are_understood(archiver: Program, sql: Any) -> None:
    (archiver.folder / "ids").write_bytes(b"\xef\xbb\xbfone\r\n\r\n# a comment\r\n  two  \r\n   \n#\nthree")
    result = await archiver("enqueue", "--file", "ids")
    assert (result.code, result.stdout) == (0, "3 new, 0 already known, 0 rejected\n")
    assert {row[0] for row in await sql.fetch("SELECT session_id FROM archive_sessions")} == {"one", "two", "three"}


async def test_a_csv_gives_each_session_its_columns_and_keeps_the_others_as_metadata(archiver: Program, sql: Any) -> None:
    csv = (
        "\ufeffsession_id,user_id,priority,kind,started_at,ended_at,Agent,Queue Name\r\n"
        's1,u-1,high,voicemail,2024-05-03T23:30:00-02:00,2024-05-03T23:40:00-02:00,"Doe, Jane",\r\n'
        "s2,,,,2024-05-03 12:00:00,,,Sales\r\n"
        "s3,,,,,,,\r\n"
    )
    result = await archiver("enqueue", "--priority", "low", "--json", stdin=csv.encode())

    assert (result.code, result.document["new"]) == (0, 3)
    query = "SELECT session_id, user_id, priority, kind, started_at, ended_at, metadata FROM archive_sessions ORDER BY session_id"
    rows = [dict(row) for row in await sql.fetch(query)]
    assert [json.loads(row.pop("metadata")) for row in rows] == [{"agent": "Doe, Jane"}, {"queue name": "Sales"}, {}]
    none = {"user_id": None, "priority": "low", "kind": "recording", "started_at": None, "ended_at": None}
    assert rows == [
        {"session_id": "s1", "user_id": "u-1", "priority": "high", "kind": "voicemail",
         "started_at": datetime(2024, 5, 4, 1, 30, tzinfo=UTC), "ended_at": datetime(2024, 5, 4, 1, 40, tzinfo=UTC)},
        {**none, "session_id": "s2", "started_at": datetime(2024, 5, 3, 12, tzinfo=UTC)},
        {**none, "session_id": "s3"},
    ]  # fmt: skip


async def test_the_platforms_own_spelling_of_the_column_is_a_header_too(archiver: Program, sql: Any) -> None:
    assert (await archiver("enqueue", stdin=b"sessionId\ns1\n")).code == 0
    assert (await archiver("enqueue", stdin=b"channel,Session ID\nkorevg,s2\n")).code == 0
    assert [row[0] for row in await sql.fetch("SELECT session_id FROM archive_sessions ORDER BY 1")] == ["s1", "s2"]


async def test_a_broken_line_4711_of_5000_stops_none_of_the_others(archiver: Program, sql: Any) -> None:
    lines = ["session_id,note"] + [f"s{number},call {number}" for number in range(2, 5001)]
    lines[4710] = 's4711,"an unclosed quote'
    (archiver.folder / "night.csv").write_text("\n".join(lines) + "\n")

    result = await archiver("enqueue", "--file", "night.csv")

    assert (result.code, result.stdout) == (3, "4998 new, 0 already known, 1 rejected\n")
    assert result.stderr.startswith("rejected line 4711: a quote that is never closed: ")
    assert len(result.stderr.splitlines()) == 1
    assert await sql.fetchval("SELECT count(*) FROM archive_sessions") == 4998


@pytest.mark.parametrize("row", [
    ("s1,nobody,,", 'unknown bot "nobody"'),
    ("s1,,fax,", 'unknown kind "fax"'),
    ("s1,,,urgent", 'unknown priority "urgent"'),
    ("s1,,", "3 fields, the header has 4"),
    ("s1,,,,x", "5 fields, the header has 4"),
    ('"s1"x,,,', "broken CSV"),
    (",,,", "not a session ID"),
    ("\x1b]0;x\x07,,,", "not a session ID"),
])  # fmt: skip
async def test_a_row_that_cannot_be_is_rejected_with_its_line_and_why(archiver: Program, row: tuple[str, str]) -> None:
    line, why = row
    result = await archiver("enqueue", stdin=f"session_id,bot,kind,priority\ngood,,,\n{line}\nbetter,,,\n".encode())
    assert (result.code, result.stdout) == (3, "2 new, 0 already known, 1 rejected\n")
    assert result.stderr.startswith("rejected line 3: ")
    assert why in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("column", ["started_at", "ended_at"])
async def test_instants_that_are_none_are_rejected(archiver: Program, column: str) -> None:
    instants = ["yesterday", "2024-13-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1709706278"]
    csv = f"session_id,{column}\n" + "".join(f"s{number},{text}\n" for number, text in enumerate(instants))
    result = await archiver("enqueue", "--json", stdin=csv.encode())
    assert (result.code, result.document["new"]) == (3, 0)
    assert [entry["line"] for entry in result.document["rejected"]] == [2, 3, 4, 5, 6]
    assert all(column in entry["why"] for entry in result.document["rejected"])


async def test_values_that_the_database_would_drop_are_rejected_with_their_lines(archiver: Program, sql: Any) -> None:
    half, rest = "x" * 32_768, "x" * 32_746
    lines = (f"s1,{'u' * 501},,", f"s2,u,{half},{rest}", f"s3,u,{half}x,", f"s4,{'u' * 500},{half},{rest[:-10]}")
    csv = "\n".join(("session_id,user_id,note,more", *lines))
    result = await archiver("enqueue", "--json", stdin=csv.encode())
    assert (result.code, result.document["new"]) == (3, 1)
    assert [(entry["line"], entry["why"]) for entry in result.document["rejected"]] == [
        (2, "a user_id of more than 500 or of unprintable characters"),
        (3, "metadata (all other columns) of 65,538 bytes, at most 65,536"),
        (4, "a column of 32,769 characters, at most 32,768"),
    ]
    assert await sql.fetchval("SELECT state FROM archive_sessions") == "pending"
    assert json.loads(await sql.fetchval("SELECT metadata FROM archive_sessions")) == {"note": half, "more": rest[:-10]}


async def test_hostile_ids_are_rejected_with_their_lines_and_the_others_go_on(archiver: Program, sql: Any) -> None:
    lines = [value.encode() for value in HOSTILE.values() if value.strip() == value and "\n" not in value and value]
    lines += [b"a\0b", b"\xff\xfe", b"caf\xe9", b"y" * 3_000_000]
    payload = b"\n".join([b"good1", *lines, b"good2"])

    result = await archiver("enqueue", "--json", stdin=payload)

    assert result.code == 3
    assert result.document["new"] == 2
    assert [entry["line"] for entry in result.document["rejected"]] == list(range(2, len(lines) + 2))
    assert all(len(entry["value"]) <= 200 for entry in result.document["rejected"])
    assert result.document["rejected"][-1]["why"] == "longer than 1,000,000 bytes"
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 2


async def test_hostile_arguments_are_rejected_and_the_others_go_on(archiver: Program) -> None:
    result = await archiver("enqueue", "good1", *HOSTILE.values(), b"\xff", "good2")

    assert (result.code, result.stdout) == (3, f"2 new, 0 already known, {len(HOSTILE) + 1} rejected\n")
    lines = result.stderr.splitlines()
    assert len(lines) == len(HOSTILE) + 1
    assert all(line.startswith("rejected argument: not a session ID (1 to 200 characters of ") for line in lines)
    assert max(len(line) for line in lines) < 400
    assert "\x1b" not in result.stderr


async def test_many_rejected_lines_are_told_once_for_each_reason(archiver: Program) -> None:
    result = await archiver("enqueue", stdin=b"a b\n" * 50 + b"\xff\n")
    assert (result.code, result.stdout) == (3, "0 new, 0 already known, 51 rejected\n")
    first, second, last = result.stderr.splitlines()
    assert first.startswith("rejected 50 lines (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...), such as line 1: not a session ID (1 to 200 ")
    assert first.endswith(': "a b"')
    assert second == 'rejected line 51: not UTF-8: "\ufffd"'
    assert "--json lists every line" in last


async def test_very_many_reasons_are_not_all_told(archiver: Program) -> None:
    lines = b"".join(b"x," + b"y," * number + b"\n" for number in range(1, 40)) + b"x,y1\nx,y2\n"
    result = await archiver("enqueue", stdin=b"session_id,bot\n" + lines)
    assert (result.code, result.stdout) == (3, "0 new, 0 already known, 41 rejected\n")
    told = result.stderr.splitlines()
    assert told[0] == 'rejected line 2: 3 fields, the header has 2: "x,y,"'
    assert (len(told), told[-1]) == (21, "... and 21 more (--json lists them all)")


async def test_a_dry_run_says_what_would_be_and_changes_nothing(archiver: Program, sql: Any) -> None:
    await archiver("enqueue", "known", "waiting", "--priority", "low")
    await archiver("cancel", "known", "--reason", "x")
    before = await sql.fetch("SELECT * FROM archive_queue ORDER BY id")
    given = ("--priority", "high", "known", "waiting", "new", "new", "a b")

    told = await archiver("enqueue", "--dry-run", *given)
    counts = "1 new, 3 already known (1 of them raised to high), 1 rejected"
    assert (told.code, told.stdout) == (3, f"would be: {counts}; nothing was changed\n")
    document = (await archiver("enqueue", "--dry-run", *given, "--json")).document
    assert (document["new"], document["known"], document["raised"]) == (0, 0, 0)
    assert (document["would_be_new"], document["would_be_known"], document["would_be_raised"]) == (1, 3, 1)
    assert await sql.fetch("SELECT * FROM archive_queue ORDER BY id") == before

    assert (await archiver("enqueue", *given)).stdout == f"{counts}\n", "as it was said"


async def test_all_or_nothing_enqueues_nothing_beside_a_rejected_line(archiver: Program, sql: Any) -> None:
    good = b"".join(b"s%d\n" % number for number in range(2500))
    result = await archiver("enqueue", "--all-or-nothing", "--json", stdin=good + b"a b\n")
    assert (result.code, result.document["new"], len(result.document["rejected"])) == (2, 0, 1)
    assert "nothing was enqueued: 1 of 2,501 lines cannot be" in result.stderr
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 0

    assert (await archiver("enqueue", "--all-or-nothing", "s1")).stdout == "1 new, 0 already known, 0 rejected\n"
    done = await archiver("enqueue", "--all-or-nothing", stdin=good)
    assert (done.code, done.stdout) == (0, "2499 new, 1 already known, 0 rejected\n")
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 2500


async def test_all_or_nothing_is_nothing_where_the_database_fails_half_way(archiver: Program, sql: Any) -> None:
    await sql.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.session_id = 's2400' THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$"""
    )
    await sql.execute("CREATE TRIGGER refusing BEFORE INSERT ON archive_queue FOR EACH ROW EXECUTE FUNCTION refuse()")
    lines = b"".join(b"s%d\n" % number for number in range(2500))
    (await archiver("enqueue", "--all-or-nothing", stdin=lines)).refused(1, "the disk is full", "nothing was enqueued")
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 0

    (await archiver("enqueue", stdin=lines)).refused(1, "the disk is full", "2,000 lines are in the queue", "run the same again")
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 2000


async def test_a_known_session_is_raised_and_never_lowered(archiver: Program, sql: Any) -> None:
    async def priority() -> Any:
        return await sql.fetchval("SELECT priority FROM archive_sessions")

    await archiver("enqueue", "s1", "--priority", "low")
    raised = await archiver("enqueue", "s1", "--priority", "high")
    assert (raised.code, raised.stdout) == (0, "0 new, 1 already known (1 of them raised to high), 0 rejected\n")
    assert await priority() == "high"
    lowered = await archiver("enqueue", "s1", "--priority", "low", "--json")
    assert lowered.document == {"new": 0, "known": 1, "raised": 0, "rejected": []}
    assert await priority() == "high"


async def test_with_several_bots_one_must_be_named(archiver: Program, data: dict[str, Any], sql: Any) -> None:
    data["bots"].append({**data["bots"][0], "name": "other"})
    archiver.configure(data)

    (await archiver("enqueue", "s1")).refused(2, "which bot?", "bot, other")
    (await archiver("enqueue", "s1", "--bot", "otter")).refused(2, 'unknown bot "otter"', "bot, other")
    assert (await archiver("enqueue", "s1", "--bot", "other")).code == 0

    mixed = await archiver("enqueue", stdin=b"session_id,bot\ns2,bot\ns3,\ns4,other\n")
    assert (mixed.code, mixed.stdout) == (3, "2 new, 0 already known, 1 rejected\n")
    assert "line 3: no bot, and several are configured" in mixed.stderr
    assert await sql.fetchval("SELECT count(*) FROM archive_sessions WHERE bot = 'other'") == 2


async def test_a_source_that_cannot_be_read_is_told(archiver: Program, sql: Any) -> None:
    (await archiver("enqueue", "--file", "no-such-file")).refused(2, "no-such-file", "No such file")
    (await archiver("enqueue", "--file", ".")).refused(2, "--file", "must be a file")
    (await archiver("enqueue", stdin=b"session_id,a,A\nx,1,2\n")).refused(2, "line 1", "a column twice")
    (await archiver("enqueue", "good", "--file", "-", stdin=b"a,b\n")).refused(2, "2 columns", "called session_id")
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 0, "nothing beside it either"
