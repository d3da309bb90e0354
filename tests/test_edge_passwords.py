"""Floods of passwords at the edge: they wait for each other, and nobody else waits for them."""

import concurrent.futures
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from services.auth.settings import AuthSettings
from strongroom.auth.v1 import sessions_pb2, sessions_pb2_grpc
from strongroom.local.clusters import PROTOCOLS, SIGN_IN, STRANGERS
from tests.stack import RunningStack, Stack
from tests.test_gateway_rest import Answer, admin, assert_problem, call

PASSWORD = "seventeen wet ferrets"
WRONG = "eighteen dry ferrets"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One in which a password takes longer than by default, so that few of them are a flood."""
    folder = tmp_path_factory.mktemp("passwords") / "data"
    with RunningStack(folder, STRONGROOM_PASSWORD_PASSES="6") as running:
        yield running


def sign_in(stack: Stack, email: str, password: str = WRONG) -> Answer:
    body = json.dumps({"email": email, "password": password}).encode()
    return call(stack, "POST", "/api/v1/sessions", {}, body)


def user(stack: Stack, email: str) -> str:
    """The refresh token of somebody who has signed in from here."""
    body = {"email": email, "name": email, "role": "viewer", "password": PASSWORD, "must_change_password": False}
    created = admin(stack, "POST", "/api/v1/users", body)
    assert created.status == 201, created.body
    return str(sign_in(stack, email, PASSWORD).json["refresh_token"])


@contextmanager
def flood(stack: Stack, senders: int) -> Iterator[list[Answer]]:
    """So many wrong passwords at a time, each for somebody else; the answers are complete when the block has ended."""
    over, answers = threading.Event(), []

    def send(sender: int) -> None:
        for number in range(1_000_000):
            if over.is_set():
                return
            answer = sign_in(stack, f"nobody-{sender}-{number}@example.com")
            answers.append(answer)
            if answer.status == 429:
                time.sleep(0.1)

    with concurrent.futures.ThreadPoolExecutor(senders) as pool:
        sent = [pool.submit(send, sender) for sender in range(senders)]
        time.sleep(0.4)
        try:
            yield answers
        finally:
            over.set()
    for future in sent:
        future.result()


@pytest.mark.slow
def test_sessions_go_on_and_known_people_sign_in_during_a_flood(stack: Stack) -> None:
    first, second = (user(stack, f"flooded-{name}@example.com") for name in "ab")
    with flood(stack, 14) as answers:
        refreshed = call(stack, "POST", "/api/v1/sessions:refresh", {}, json.dumps({"refresh_token": first}).encode())
        assert refreshed.status == 201, refreshed.body
        with grpc.insecure_channel(stack.target) as channel:
            stub = sessions_pb2_grpc.SessionServiceStub(channel)
            stub.SignOut(sessions_pb2.SignOutRequest(refresh_token=second), timeout=10)
        known = sign_in(stack, "flooded-a@example.com", PASSWORD)
        assert known.status == 201, known.body
        assert call(stack, "GET", "/health").status == 200
    busy = [answer for answer in answers if answer.status == 429 and answer.json["reason"] == "SIGN_IN_BUSY"]
    assert busy, "auth decides who waits"
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in busy)
    assert 503 not in {answer.status for answer in answers}


@pytest.mark.slow
def test_more_than_the_gateway_sends_on_are_told_when_to_try_again(stack: Stack) -> None:
    with concurrent.futures.ThreadPoolExecutor(48) as crowd:
        answers = list(crowd.map(lambda number: sign_in(stack, f"crowd-{number}@example.com"), range(48)))
    refused = [answer for answer in answers if answer.status != 401]
    assert refused
    for answer in refused:
        reason = {429: answer.json["reason"], 503: "UNAVAILABLE"}[answer.status]
        assert "upstream" not in assert_problem(answer, answer.status, reason)["detail"]
        assert int(answer.headers["retry-after"]) >= 1


def test_the_gateway_lets_more_wait_than_auth_does() -> None:
    """Or nobody whom auth knows would find a place; and fewer than take all threads of strangers."""
    defaults = {name: AuthSettings.model_fields[name].default for name in ("password_threads", "password_waiting")}
    assert sum(defaults.values()) < STRANGERS[SIGN_IN]
    assert STRANGERS[SIGN_IN] + STRANGERS[PROTOCOLS] + 4 < AuthSettings.model_fields["workers"].default
