"""When a secret rotates: a cron expression in a time zone.

Five fields as in cron(5), with Debian's rules where clocks change: what falls into the hour that is skipped happens
right after it, what falls into the hour that comes twice happens once.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from services.shared.errors import InvalidArgument

_FIELDS = 5


class ScheduleInvalid(InvalidArgument):
    reason = "SCHEDULE_INVALID"


@dataclass(frozen=True)
class Schedule:
    """A cron expression in a time zone of the IANA database.

    >>> weekly = Schedule.parse("0 3 * * SUN", "Europe/Vienna")
    >>> weekly.next_after(datetime(2026, 1, 1, tzinfo=UTC)).isoformat()
    '2026-01-04T02:00:00+00:00'
    """

    expression: str
    time_zone: str = "UTC"

    @classmethod
    def parse(cls, expression: str, time_zone: str = "UTC") -> "Schedule":
        """Raises ScheduleInvalid for what cron does not understand, and for what never comes."""
        schedule = cls(expression, time_zone)
        if len(expression.split()) != _FIELDS:
            raise ScheduleInvalid("A schedule has five fields: minute, hour, day of month, month, day of week.")
        try:
            schedule.next_after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            raise ScheduleInvalid(f"The schedule {expression!r} never comes: {error or 'no such day'}.") from None
        # ZoneInfo reads files by name: it refuses paths out of its folder with ValueError.
        except (KeyError, ValueError, OSError):
            raise ScheduleInvalid(f"There is no time zone {time_zone!r}. Write it like Europe/Vienna.") from None
        return schedule

    def next_after(self, moment: datetime) -> datetime:
        """The next time behind a moment, in UTC."""
        zone = UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)
        return next(CronSim(self.expression, moment.astimezone(zone))).astimezone(UTC)
