"""Dramatiq workers that read a secret and keep their results in Strongroom, with an API key and HTTP.

    export STRONGROOM_URL=http://127.0.0.1:8080
    export STRONGROOM_API_KEY=$(strongroom keys create dramatiq --permission-set training_pipeline --expires 90)
    python dramatiq_worker.py

Run like this, messages stay in memory and the workers are threads of this process. In production, set a RedisBroker or
RabbitmqBroker instead and start `dramatiq dramatiq_worker`.
"""

import json
import os

import dramatiq
import requests
from dramatiq.brokers.stub import StubBroker

broker = StubBroker()
dramatiq.set_broker(broker)

URL = os.getenv("STRONGROOM_URL", "http://127.0.0.1:8080")


def headers() -> dict[str, str]:
    return {"X-API-Key": os.environ["STRONGROOM_API_KEY"], "Content-Type": "application/json"}


# Dramatiq repeats what fails, with growing random waits; what was refused for good it need not repeat.
@dramatiq.actor(max_retries=5, min_backoff=500, throws=(PermissionError,))
def collect_training_data(batch: int) -> None:
    """Stands for the real thing: makes a file of numbers and stores it as a version."""
    rows = json.dumps([batch * 100 + number for number in range(100)])
    address = f"{URL}/api/v1/managers/default/models/dramatiq-demo/versions/batch-{batch}/files/rows.json"
    response = requests.put(address, data=rows, headers=headers(), timeout=60)
    if response.status_code == requests.codes.conflict:
        return  # delivered twice: the first time it was stored
    if response.status_code in (401, 403):
        raise PermissionError(response.json()["detail"])
    response.raise_for_status()
    print(f"batch {batch} is kept")


def main() -> None:
    worker = dramatiq.Worker(broker, worker_threads=2)
    worker.start()
    try:
        for batch in range(4):
            collect_training_data.send(batch)
        broker.join(collect_training_data.queue_name, fail_fast=True)
        worker.join()
    finally:
        worker.stop()
    versions = f"{URL}/api/v1/managers/default/models/dramatiq-demo/versions"
    answer = requests.get(versions, headers=headers(), timeout=60)
    answer.raise_for_status()
    print("stored:", ", ".join(sorted(version["version"] for version in answer.json()["versions"])))


if __name__ == "__main__":
    main()
