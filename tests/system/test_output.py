"""What commands print: nothing raw from outside, no traceback when the reader or the disk is gone."""

from __future__ import annotations

from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import ESCAPE, Program


async def test_a_row_of_others_forges_no_line_of_an_error(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's1'), (E'b\nerror: forged', 's1')")
    result = await archiver("show", "s1")
    result.refused(2, r"b\nerror: forged/recording, bot/recording", "--kind")
    assert len(result.stderr.splitlines()) == 2


async def test_what_other_systems_wrote_reaches_no_terminal_raw(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', $1, $1), ($1, 'x', $1), ($1, 'x', 'y'), "
                      "('bot', 'a:bug:b', 'recording')", ESCAPE)  # fmt: skip
    await sql.execute("UPDATE archive_queue SET metadata = jsonb_build_object($1::text, $1::text), user_id = $1", ESCAPE)

    results = [await archiver(*words) for words in (
        ["status"], ["show", ESCAPE], ["show", "x"], ["show", "a:bug:b"], ["cancel", ESCAPE, "--reason", ESCAPE],
        ["cancel", "a:bug:b", "--reason", ESCAPE], ["show", "a:bug:b"], ["retry", ESCAPE])]  # fmt: skip

    assert [result.code for result in results] == [0, 0, 2, 0, 0, 0, 0, 0]
    for result in results:
        printed = result.stdout + result.stderr
        assert not set(printed) & {"\x1b", "\x9b", "\u202e"}, printed
        assert "Traceback" not in printed
    assert "\\x1b[31m\\x9b2J\\u202e[bold]:bug:" in results[1].stdout
    assert "a:bug:b (bot, recording)" in results[3].stdout
    documents = [(await archiver(*words, "--json")).document for words in (["status"], ["show", ESCAPE])]
    assert ESCAPE in documents[0]["bots"]
    assert documents[1]["session_id"] == ESCAPE


@pytest.mark.parametrize("words", ["status --json", "show s1", "--help"])
async def test_a_reader_that_goes_away_meets_no_traceback(archiver: Program, simulator: Simulator, sql: Any, words: str) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id, metadata) "
                      "SELECT 'bot', 's1', jsonb_object_agg(n, repeat('x', 100)) FROM generate_series(1, 3000) n")  # fmt: skip
    for script in (
        f"archiver {words} | head -1",
        f"archiver {words} | true",
        f"archiver {words} >&-",
        f"archiver {words} 2>&- >/dev/null",
    ):
        result = await archiver.shell(script)
        assert result.stderr == "", (script, result)
        assert result.code in (0, 1)


async def test_a_full_disk_under_the_output_is_told(archiver: Program) -> None:
    for words in ("status", "status --json"):
        result = await archiver.shell(f"archiver {words} > /dev/full")
        result.refused(1, "the output cannot be written: No space left on device")


async def test_what_a_worker_or_a_row_calls_itself_reaches_no_terminal_raw(archiver: Program, sql: Any) -> None:
    await sql.execute(
        "INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ($1, 1, $1, now() + interval '1 h')", ESCAPE
    )
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ($1, 'a')", ESCAPE)
    await sql.execute(
        "UPDATE archive_queue SET state = 'claimed', worker_id = (SELECT id FROM archive_workers), claimed_at = now()"
    )
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ($1, 'b')", ESCAPE)
    for words in (["workers"], ["status"], ["retry", "--dry-run", "--error", ESCAPE], ["retry", "--since", ESCAPE]):
        result = await archiver(*words)
        printed = result.stdout + result.stderr
        assert result.code == (2 if "--since" in words else 0)
        assert not set(printed) & {"\x1b", "\x9b", "\u202e"}, printed
        assert "Traceback" not in printed
    assert (await archiver("workers", "--json")).document["workers"][0]["sessions"][0]["bot"] == ESCAPE
