"""The demo's night meets everything, adds up, and can be played."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from archiver.simulator.scenario import demo_scenario
from archiver.simulator.script import SessionScript

if TYPE_CHECKING:
    from archiver.simulator.platform import Simulator


@pytest.mark.parametrize("count", [100, 101, 137, 300, 1000])
def test_it_adds_up(count: int) -> None:
    scripts = demo_scenario(count, seed=1)
    assert len(scripts) == len({script.session_id for script in scripts}) == count
    assert all(re.fullmatch("[0-9a-f]{24}", script.session_id) for script in scripts)


def test_too_few_to_meet_everything_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        demo_scenario(99, seed=1)


def test_it_follows_from_its_seed() -> None:
    one, again, other = (demo_scenario(seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert {script.session_id for script in one}.isdisjoint(script.session_id for script in other)


def test_most_are_plain_successes() -> None:
    scripts = demo_scenario(300, seed=1)
    assert 180 <= Counter(script.note for script in scripts)["a plain success"] <= 210
    assert {script.expected for script in scripts} == {"archived", "unavailable", "failed"}


@pytest.mark.parametrize("count", [100, 300])
def test_it_meets_every_status_and_fault(count: int) -> None:
    scripts = demo_scenario(count, seed=1)
    answers = [answer.model_dump() for script in scripts for answer in script.answers]
    statuses = {answer["status"] for answer in answers if "status" in answer}
    assert statuses > {"success", "call_in_progress", "media_in_progress", "media_unavailable", "failed"}
    assert {answer.get("fault") for answer in answers} == {None, "reset", "rate_limited", "unauthorized"}
    assert {answer.get("http_status") for answer in answers} > {500, 502, 503, 504}
    recordings = [recording for script in scripts for recording in script.recordings or []]
    faults = [fault for recording in recordings for fault in recording.faults]
    kinds = {fault.kind for fault in faults}
    everything = "truncate reset slow status page json empty no_length expired redirect"
    assert kinds == set(everything.split())
    for kind in ("truncate", "page", "json", "empty"):
        assert {fault.times for fault in faults if fault.kind == kind} == {1, None}
    assert {recording.riff_sizes for recording in recordings} == {"true", "zero", "ffffffff", "wrong"}
    assert {recording.audio.format for recording in recordings if recording.audio} == {"wav", "flac"}
    urls = [recording.url for recording in recordings if recording.url]
    assert sum(url.startswith("https://") for url in urls) == 1
    assert {"file:///etc/passwd", "http://169.254.169.254/latest/meta-data/"} < set(urls)
    assert any(script.recordings == [] for script in scripts)
    assert any(script.recordings is None for script in scripts)
    assert any(len(script.recordings or []) == 1000 for script in scripts)
    names = {recording.file_name for recording in recordings if recording.file_name is not None}
    assert {"../../etc/passwd", "CON.wav", "a:b?.wav"} < names
    assert any("\0" in name for name in names)
    assert any(len(name) == 400 for name in names)


def test_nothing_in_it_lasts_longer_than_three_seconds() -> None:
    for script in demo_scenario(300, seed=1):
        assert sum(answer.for_seconds or 0 for answer in script.answers) <= 3


def test_given_audio_files_are_served() -> None:
    scripts = demo_scenario(300, seed=1, audio_files=["a.wav", "b.wav"])
    recordings = [recording for script in scripts for recording in script.recordings or []]
    used = Counter(recording.audio.file for recording in recordings if recording.audio is not None)
    assert min(used["a.wav"], used["b.wav"]) > 100


async def test_the_simulator_takes_it_also_from_json(sim: Simulator) -> None:
    scripts = demo_scenario(300, seed=1)
    for script in scripts:
        sim.script(script)
        assert SessionScript.from_json(script.to_json()) == script
    assert all(len(sim.sha256_of(script.session_id)) == len(script.recordings or []) for script in scripts)
