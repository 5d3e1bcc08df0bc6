"""Options that are an amount: a part of all, so many bytes, a time ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from fractions import Fraction

import click

from archiver.cli.compose import MOMENT
from archiver.config import parse_duration, parse_size

MAX_PARTS = 10_000


class _Part(click.ParamType[Fraction]):
    """A part of all, such as 1/30."""

    name = "N/M"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        text = str(value)
        part = Fraction(text) if re.fullmatch(r"[0-9]{1,5}/[1-9][0-9]{0,4}", text) else Fraction(0)
        if not 0 < part <= 1 or part.denominator > MAX_PARTS:
            self.fail(f'"{text}" must be a part of all, such as 1/30', param, ctx)
        return part


PART = _Part()


class _Size(click.ParamType[int]):
    """Bytes, as the configuration has them; at least one."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = parse_size(value)
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)
        if not size:
            self.fail(f'"{value}" must be more than nothing', param, ctx)
        return size


SIZE = _Size()


class _Since(click.ParamType["timedelta | datetime"]):
    """So long ago, or a moment."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta | datetime:
        if isinstance(value, timedelta | datetime):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            if not re.match(r"[0-9]{4}-[0-9]", str(value)):
                self.fail(f'"{value}" {error}', param, ctx)
        return MOMENT.convert(str(value), param, ctx)


SINCE = _Since()
