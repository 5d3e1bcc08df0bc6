"""Every metric that a process can export, each with a value."""

from __future__ import annotations

from prometheus_client import Metric

from archiver.observe.figures import BotFigures, BudgetFigures, ConfiguredFigures, Figures, Hold, Notifications
from archiver.observe.fleet_metrics import fleet_metrics
from archiver.observe.metrics import Now, build_info, metrics, momentary_metrics, readiness_metrics, store_metrics
from archiver.observe.readiness import Readiness
from archiver.observe.tally import Tally
from archiver.outcome import REASONS


def every_metric() -> list[Metric]:
    account = ConfiguredFigures(1.0, {"account": BudgetFigures(0.5, 0, 0)}, 1.0)
    bot = BotFigures({}, False, 0.0, 1.0, 1.0, 0, 0.0, 1.0, account)
    holds, waiting = (Hold("bot", "recording", "why"),), Notifications(1, 1.0)
    figures = Figures(1.0, 1, 1, 1.0, 1.0, 1, holds, {"bot": bot}, waiting)
    tally, readiness = Tally(config_reload_successful=True, config_reloaded_at=1.0), Readiness()
    return [
        build_info("0"),
        *readiness_metrics(readiness),
        *metrics(["bot"], tally, REASONS),
        *momentary_metrics(["bot"], tally, Now(1, 1, 1.0)),
        *store_metrics((1, 2)),
        *fleet_metrics(figures, 1.0),
    ]
