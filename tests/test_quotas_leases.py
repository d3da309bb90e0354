"""Leases of quotas: none is exceeded, whatever the replicas do, and what happens without auth."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared import quotas
from services.shared.identity import Quota
from services.shared.quotas import PERIODS, Grant, Leases, QuotaUnknown, Standing, block, period_start

HALF_PAST = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = HALF_PAST

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Auth:
    """Counts in memory, as auth does in its database."""

    clock: Clock = field(default_factory=Clock)
    taken: Counter[tuple[str, Quota, datetime]] = field(default_factory=Counter)
    away: bool = False
    asked: int = 0

    def reserve(self, principal: str, quota: Quota, wanted: int) -> Grant:
        self.asked += 1
        if self.away:
            raise QuotaUnknown
        starts_at = period_start(self.clock(), quota.per)
        left = quota.requests - self.taken[principal, quota, starts_at]
        granted = min(left, wanted)
        self.taken[principal, quota, starts_at] += granted
        return Grant(granted, left - granted, starts_at + PERIODS[quota.per])

    def replica(self) -> Leases:
        return Leases(self.reserve, self.clock)


@pytest.mark.parametrize(
    ("per", "start"),
    [
        ("minute", datetime(2026, 11, 21, 12, 34, tzinfo=UTC)),
        ("hour", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("day", datetime(2026, 11, 21, tzinfo=UTC)),
    ],
)
def test_periods_are_those_of_utc(per: str, start: datetime) -> None:
    assert period_start(datetime(2026, 11, 21, 12, 34, 56, 789, tzinfo=UTC), per) == start
    assert period_start(start, per) == start


@given(requests=st.integers(1, 1_000_000_000))
def test_a_block_is_one_request_or_at_most_two_per_cent(requests: int) -> None:
    assert block(requests) == 1 or block(requests) * 50 <= requests


@pytest.mark.row("S1.9")
@given(
    limit=st.integers(1, 400),
    per=st.sampled_from(["minute", "hour"]),
    steps=st.lists(st.one_of(st.integers(0, 2), st.integers(3, 4000)), max_size=400),
)
def test_no_quota_is_exceeded_by_any_replicas(limit: int, per: str, steps: list[int]) -> None:
    auth = Auth()
    replicas = [auth.replica() for _ in range(3)]
    quota = Quota("train", limit, per)  # type: ignore[arg-type]
    passed: Counter[datetime] = Counter()
    for step in steps:
        if step < len(replicas):
            passed[period_start(auth.clock(), per)] += replicas[step].take("key:ci", quota).allowed
        else:
            auth.clock.now += timedelta(seconds=step)
    assert max(passed.values(), default=0) <= limit


@given(limit=st.integers(1, 1000), replicas=st.integers(1, 4))
def test_what_is_refused_early_is_less_than_a_block_of_each_other_replica(limit: int, replicas: int) -> None:
    auth, quota = Auth(), Quota("train", limit, "hour")
    every = [auth.replica() for _ in range(replicas)]
    passed = sum(replica.take("key:ci", quota).allowed for replica in every)
    while every[0].take("key:ci", quota).allowed:
        passed += 1
    assert limit - (replicas - 1) * (block(limit) - 1) <= passed <= limit


def test_a_quota_begins_anew_with_its_period() -> None:
    auth, quota = Auth(), Quota("upload", 1, "hour")
    replica = auth.replica()
    assert replica.take("key:ci", quota) == Standing(
        True, 1, 0, HALF_PAST + timedelta(minutes=30), timedelta(minutes=30)
    )
    refused = replica.take("key:ci", quota)
    assert (refused.allowed, refused.remaining, refused.resets_in) == (False, 0, timedelta(minutes=30))
    auth.clock.now += timedelta(minutes=29, seconds=59.9)
    assert not replica.take("key:ci", quota).allowed
    auth.clock.now += timedelta(seconds=0.1)
    assert replica.take("key:ci", quota).allowed


def test_whoever_is_refused_costs_auth_nothing() -> None:
    auth, quota = Auth(), Quota("upload", 1, "day")
    replica = auth.replica()
    assert [replica.take("key:ci", quota).allowed for _ in range(50)] == [True] + [False] * 49
    assert auth.asked == 1


def test_a_large_quota_is_asked_for_fifty_times_a_period() -> None:
    auth, quota = Auth(), Quota("other", 1000, "day")
    replica = auth.replica()
    standings = [replica.take("key:ci", quota) for _ in range(1001)]
    assert [standing.allowed for standing in standings] == [True] * 1000 + [False]
    assert [standing.remaining for standing in standings] == [*reversed(range(1000)), 0]
    assert auth.asked == 50


def test_principals_and_classes_do_not_share_a_quota() -> None:
    auth = Auth()
    replica = auth.replica()
    for principal in ("key:a", "key:b"):
        for usage_class in ("train", "predict"):
            quota = Quota(usage_class, 1, "day")
            assert [replica.take(principal, quota).allowed for _ in range(2)] == [True, False]


def test_a_raised_quota_holds_at_once() -> None:
    replica = Auth().replica()
    assert not [replica.take("key:a", Quota("train", 1, "day")) for _ in range(2)][-1].allowed
    assert replica.take("key:a", Quota("train", 3, "day")).allowed


@pytest.mark.parametrize("usage_class", ["train", "predict", "upload"])
def test_without_auth_what_costs_is_refused_beyond_the_lease(usage_class: str) -> None:
    auth, quota = Auth(), Quota(usage_class, 150, "hour")
    replica = auth.replica()
    assert replica.take("key:ci", quota).allowed
    auth.away = True
    assert [replica.take("key:ci", quota).allowed for _ in range(2)] == [True, True]  # leased: a block is three
    with pytest.raises(QuotaUnknown):
        replica.take("key:ci", quota)
    auth.away = False
    with pytest.raises(QuotaUnknown):  # within a second auth is not asked again
        replica.take("key:ci", quota)
    auth.clock.now += timedelta(seconds=1)
    assert replica.take("key:ci", quota).allowed


def test_without_auth_reads_pass_and_are_taken_from_the_quota_later() -> None:
    auth, quota = Auth(away=True), Quota("other", 10, "hour")
    replica = auth.replica()
    assert [replica.take("key:ci", quota).allowed for _ in range(4)] == [True] * 4
    assert auth.asked == 1
    auth.away = False
    auth.clock.now += timedelta(seconds=1)
    assert [replica.take("key:ci", quota).allowed for _ in range(7)] == [True] * 6 + [False]
    assert set(auth.taken.values()) == {10}


def test_without_auth_a_replica_lets_pass_no_more_reads_than_were_left() -> None:
    auth, quota = Auth(away=True), Quota("other", 3, "hour")
    replica = auth.replica()
    assert [replica.take("key:ci", quota).allowed for _ in range(3)] == [True] * 3
    with pytest.raises(QuotaUnknown):
        replica.take("key:ci", quota)


def test_leases_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_MOST_LEASES", 10)
    auth = Auth()
    replica = auth.replica()
    for number in range(100):
        replica.take(f"key:{number}", Quota("train", 1, "day"))
    assert len(replica._leases) == 10
    assert not replica.take("key:0", Quota("train", 1, "day")).allowed  # auth has not forgotten
