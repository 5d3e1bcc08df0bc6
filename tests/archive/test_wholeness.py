"""What a header says wrongly is a flag where the transfer proves that all has come, and a refusal where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.archive.download import Download
from archiver.archive.transfer import Target, Transferred, transfer
from archiver.errors import TransferError
from archiver.observe.transfers import Transfer, Transfers
from archiver.runtime.buffers import Buffers
from archiver.stores.local.store import LocalStore
from tests.archive.test_resumption import Urls, media
from tests.audio_files import flac, id3, wav
from tests.kore.conftest import RawServer, http_answer, raw_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nConnection: close\r\n"
ODD = wav() + id3()


def chunked(body: bytes, *codings: bytes) -> bytes:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + 999]), body[at : at + 999]) for at in range(0, len(body), 999))
    heads = b"".join(b"Transfer-Encoding: %b\r\n" % coding for coding in codings or [b"chunked"])
    return HEAD + heads + b"\r\n" + pieces + b"0\r\n\r\n"


async def fetched(raw: RawServer, folder: Path) -> Transferred:
    store = LocalStore(folder, Buffers(1 << 20))
    to = Target("a.wav", "a.wav", ".a.part", "quarantine/", keep_rejected=False, limit=1 << 20, limited_by="x")
    try:
        async with media() as client:
            progress, transfers = Transfer("b", "s", "f"), Transfers()
            urls = Urls(f"{raw.url}/a")
            return await transfer(lambda: Download(client, urls, progress, transfers), to, store, lambda: None)
    finally:
        store.close()


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "answer",
    [http_answer(ODD, Content_Type="audio/wav"), chunked(ODD), chunked(ODD, b"Chunked")],
    ids=["a length", "chunks", "chunks, spelled otherwise"],
)
async def test_a_body_with_an_end_of_its_own_is_whole(answer: bytes, tmp_path: Path) -> None:
    async with raw_server(lambda head: answer) as raw:
        done = await fetched(raw, tmp_path)
    assert (tmp_path / "a.wav").read_bytes() == ODD
    assert (done.inspection.media_type, done.inspection.flags, done.inspection.seconds) == ("audio/wav", ("trailing_bytes",), 1)


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (ODD, None),
        (wav(riff_size=36), None),
        (wav(audio=b""), None),
        (wav(), ()),
        (wav(riff_size=0, data_size=0), ("streamed_wav",)),
    ],
    ids=["ID3 behind", "RIFF size wrong", "no audio", "in order", "streamed"],
)
@pytest.mark.parametrize("coding", [b"", b"Transfer-Encoding: chunked, identity\r\n"], ids=["no coding", "chunks, but not last"])
async def test_a_connection_that_was_closed_proves_nothing(
    body: bytes, flags: tuple[str, ...] | None, coding: bytes, tmp_path: Path
) -> None:
    async with raw_server(lambda head: HEAD + coding + b"\r\n" + body) as raw:
        if flags is not None:
            assert (await fetched(raw, tmp_path)).inspection.flags == flags
            return
        with pytest.raises(TransferError) as caught:
            await fetched(raw, tmp_path)
    assert caught.value.reason == "recording_bad_wav"
    assert list_names(tmp_path) == []


@pytest.mark.parametrize("coding", ["chunked", "identity, chunked"])
async def test_chunks_without_their_end_are_a_broken_body(coding: str, tmp_path: Path) -> None:
    async with raw_server(lambda head: chunked(wav(), coding.encode())[: -len(b"0\r\n\r\n")]) as raw:
        with pytest.raises(TransferError) as caught:
            await fetched(raw, tmp_path)
    assert caught.value.reason == "recording_truncated"


async def test_what_a_wav_turns_out_to_be_keeps_the_name_that_the_platform_gave(tmp_path: Path) -> None:
    async with raw_server(lambda head: http_answer(flac(), Content_Type="audio/wav")) as raw:
        done = await fetched(raw, tmp_path)
    assert (tmp_path / "a.wav").read_bytes() == flac()
    assert done.inspection.media_type == "audio/flac"
    assert done.inspection.flags == ("type_differs", "name_differs")
    assert done.inspection.seconds == 2
