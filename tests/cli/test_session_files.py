"""What counts as a list of sessions, and what is said of what does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.cli.session_files import MAX_LINE, MAX_QUOTED, Record, open_lines, read_records
from archiver.errors import UsageError


def records(folder: Path, content: bytes) -> list[Record]:
    file = folder / "list"
    file.write_bytes(content)
    with open_lines(file) as lines:
        return list(read_records(lines))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# exported\n\n", "sep=;\r\n"])
def test_the_header_says_what_separates_the_columns(tmp_path: Path, separator: str, start: str) -> None:
    lines = (("sessionId", "Note"), ("s1", '"a, b; c"'), ("s2", ""))
    found = records(tmp_path, (start + "\r\n".join(separator.join(line) for line in lines)).encode())
    assert [record.values for record in found] == [
        {"session_id": "s1", "note": "a, b; c"}, {"session_id": "s2", "note": ""}
    ]  # fmt: skip


def test_a_comma_comes_first_where_two_separators_would_do(tmp_path: Path) -> None:
    assert records(tmp_path, b"session_id,a;b\ns1,x;y\n")[0].values == {"session_id": "s1", "a;b": "x;y"}


def test_one_id_a_line_needs_no_header(tmp_path: Path) -> None:
    assert [record.values for record in records(tmp_path, b"s1\n s2 \n")] == [{"session_id": "s1"}, {"session_id": "s2"}]
    assert records(tmp_path, b"") == []


JSON = b'[{"sessionId": "s1"}, {"sessionId": "s2"}]'


@pytest.mark.parametrize(
    ("content", "told", "hint"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "workbook of Excel", "CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "workbook of Excel", "CSV"),
        (b"\x1f\x8b\x08\0", "compressed", "gunzip"),
        ("session_id\ns1\n".encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8"),
        ("\ufeffsession_id\ns1\n".encode("utf-16-be"), "UTF-16", "UTF-8"),
        ("session_id\ns1\n".encode("utf-16-le"), "UTF-16 or binary", "UTF-8"),
        (JSON, "JSON", "jq"),
        (JSON + b" " * MAX_LINE, "JSON", "jq"),
        (b"\xef\xbb\xbf" + JSON, "JSON", "jq"),
        (b'\n  {"sessionId": "s1"}\n', "JSON", "jq"),
        (b"<html>", "XML or HTML", "one ID a line"),
        (b"s1,2026-03-31\ns2,2026-03-31\n", "line 1: 2 columns, and none of them is called session_id", "header"),
        (b"# from the CRM\nconversation;started\ns2;2026-03-31\n", "line 2: 2 columns", "header"),
        (b"s1\t\t\n", "line 1: 3 columns", "header"),
        (b"session_id;a;A\n", "line 1: the CSV's header has a column twice", "rename"),
    ],
)
def test_what_is_no_list_is_told_once_with_what_to_do(tmp_path: Path, content: bytes, told: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        records(tmp_path, content)
    assert told in refused.value.message
    assert hint in refused.value.hint


def test_it_is_told_before_anything_is_returned() -> None:
    def lines() -> Iterator[tuple[bytes, bool]]:
        yield b"a,b\n", True
        raise AssertionError("read on")

    with pytest.raises(UsageError):
        next(read_records(lines()))


@pytest.mark.parametrize("written", [b"", b"s0\n"])
def test_a_fifo_with_a_silent_writer_or_none_can_be_left(tmp_path: Path, written: bytes) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    found: list[list[Record]] = []
    writer = None
    with open_lines(fifo) as lines:
        if written:
            writer = os.open(fifo, os.O_WRONLY)
            os.write(writer, written)
        reading = threading.Thread(target=lambda: found.append(list(read_records(lines))), daemon=True)
        reading.start()
    reading.join()
    assert len(found[0]) <= bool(written)
    if writer is not None:
        os.close(writer)


def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    writing = threading.Thread(target=fifo.write_bytes, args=[b"s1\ns2\n"])
    writing.start()
    with open_lines(fifo) as lines:
        assert [record.text for record in read_records(lines)] == ["s1", "s2"]
    writing.join()


def test_what_stands_within_quotes_is_no_record(tmp_path: Path) -> None:
    content = (
        b'session_id,note\ns1,"evil\nforged1,x\n\n# no comment\nforged2,""y""\nforged3",\ns2,fine\ns3,"\xff\nforged4"\ns4,\n'
    )
    found = records(tmp_path, content)
    assert [(record.line, record.error is None) for record in found] == [(2, False), (8, True), (9, False), (11, True)]
    assert "line break within quotes" in str(found[0].error)


@pytest.mark.parametrize("later", [3, MAX_QUOTED + 50])
def test_a_stray_quote_costs_its_line_alone(tmp_path: Path, later: int) -> None:
    stray, *found = records(tmp_path, b'session_id,note\ns1,"evil\n' + b"s2,x\n" * later)
    assert (stray.line, "never closed" in str(stray.error)) == (2, True)
    assert [(record.line, record.error) for record in found] == [(3 + number, None) for number in range(later)]


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    found = records(tmp_path, b"session_id,started_at,,\ns1,2026-03-31,a,b\n")
    assert [record.values for record in found] == [{"session_id": "s1", "started_at": "2026-03-31"}]


@pytest.mark.parametrize("standard", [True, False])
def test_a_directory_is_no_list(tmp_path: Path, standard: bool) -> None:
    before, folder = os.dup(0), os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, 0)
    try:
        with pytest.raises(UsageError, match="Is a directory") as refused, open_lines(Path("-") if standard else tmp_path):
            pass
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(folder)
    assert "name a readable file" in refused.value.hint
