"""A thousand check-and-set writes from two processes to one PostgreSQL: every version has one winner, none is lost."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import services.secrets
from services.secrets.vault import Vault
from services.secrets.vault_errors import VersionMismatch
from services.shared.database import Database
from tests.keyrings import keyring

MIGRATIONS = Path(services.secrets.__file__).parent / "migrations"
PROCESSES, THREADS, WRITES = 2, 5, 100
NAME = "contended"

Won = dict[int, str]


def vault_of(url: str) -> Vault:
    """With the same root key everywhere."""
    database = Database.open(url, service="secrets", migrations=MIGRATIONS, pool_size=THREADS)
    vault = Vault(database, keyring(database))
    vault.prepare()
    return vault


def write(url: str, process: int) -> tuple[list[Won], int]:
    """What each thread of this process won, by version; how many writes were refused in all."""
    vault = vault_of(url)

    def attempts(thread: int) -> tuple[Won, int]:
        chance, won, refused = random.Random(thread), Won(), 0
        for number in range(WRITES):
            mark = f"{process}/{thread}/{number}"
            current = vault.get(NAME).about.version
            if chance.random() < 0.1:
                current -= 1  # a caller who has not read for long
            try:
                won[vault.update(NAME, {"by": mark}, mark, expected_version=current).version] = mark
            except VersionMismatch:
                refused += 1
        return won, refused

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(attempts, range(THREADS)))
    return [won for won, _ in results], sum(refused for _, refused in results)


@pytest.mark.row("S4.1")
def test_one_winner_a_version_and_none_lost(postgresql_url: str) -> None:
    vault = vault_of(postgresql_url)
    vault.create(NAME, {"by": ""}, "")
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(write, [postgresql_url] * PROCESSES, range(PROCESSES)))
    won = [pair for wins, _ in results for thread in wins for pair in thread.items()]
    assert len(won) + sum(refused for _, refused in results) == PROCESSES * THREADS * WRITES == 1000
    assert len(won) > PROCESSES * THREADS
    assert sorted(version for version, _ in won) == list(range(2, len(won) + 2))
    history = {version.version: version.created_by for version in vault.history(NAME)}
    assert history == dict(won) | {1: ""}
    for version, mark in random.Random(1).sample(won, 20):
        assert vault.get(NAME, version).data == {"by": mark}
