"""A Prefect flow that keeps what it makes in Strongroom, with nothing but an API key and HTTP.

export STRONGROOM_URL=http://127.0.0.1:8080
export STRONGROOM_API_KEY=$(strongroom keys create prefect --permission-set prefect_workflows --expires 90)
python prefect_flow.py
"""

import hashlib
import json
import os
import time

import requests
from prefect import flow, task
from prefect.tasks import exponential_backoff

URL = os.getenv("STRONGROOM_URL", "http://127.0.0.1:8080")
HEADERS = {"X-API-Key": os.environ["STRONGROOM_API_KEY"], "Content-Type": "application/json"}
MODEL = f"{URL}/api/v1/managers/default/models/prefect-demo/versions"

# Growing waits with jitter, also for 429: too many requests a minute.
patient = {"retries": 4, "retry_delay_seconds": exponential_backoff(2), "retry_jitter_factor": 1}


@task
def train() -> bytes:
    """Stands for the real thing."""
    return json.dumps({"weights": [0.5, 1.5, 2.5], "trained_at": time.time()}).encode()


@task(**patient)
def keep(weights: bytes) -> str:
    """Stores the weights as a new version; encrypted, checked, for good."""
    version = time.strftime("%Y%m%d-%H%M%S")
    response = requests.put(f"{MODEL}/{version}/files/weights.json", data=weights, headers=HEADERS, timeout=60)
    response.raise_for_status()
    return version


@task(**patient)
def check(version: str, weights: bytes) -> None:
    """Reads them back."""
    response = requests.get(f"{MODEL}/{version}/files/weights.json", headers=HEADERS, timeout=60)
    response.raise_for_status()
    if hashlib.sha256(response.content).digest() != hashlib.sha256(weights).digest():
        raise ValueError(f"{version} came back with other bytes")


@flow(log_prints=True)
def nightly() -> str:
    weights = train()
    version = keep(weights)
    check(version, weights)
    print(f"kept as prefect-demo@{version}")
    return version


if __name__ == "__main__":
    nightly()
