from __future__ import annotations

import os
import pwd
import socket

import pytest

from archiver.cli.compose import actor


def test_an_account_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    nameless = next(uid for uid in range(1234, 65000) if uid not in taken)
    monkeypatch.setattr(os, "geteuid", lambda: nameless)
    monkeypatch.setenv("LOGNAME", "somebody.else")
    assert actor() == f"uid {nameless}@{socket.gethostname()}"
