"""Secrets that stand in AWS Secrets Manager or Parameter Store, read from moto's servers of both."""

import json
import sys
from collections.abc import Iterator

import boto3
import pytest

from services.auth.secret_references import SecretReferenceError, resolve
from tests.aws import ANYBODY, moto

TOKEN = "a token that nobody should see in an error"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
def environment(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ANYBODY, "AWS_ENDPOINT_URL": aws}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.row("S3.9")
def test_a_token_is_read_from_secrets_manager(environment: None) -> None:
    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(Name="strongroom/token", SecretString=f"{TOKEN}\n")["ARN"]
    assert resolve("aws-sm://strongroom/token") == resolve(f"aws-sm://{arn}") == TOKEN
    secrets.put_secret_value(SecretId="strongroom/token", SecretString="the next")
    assert resolve("aws-sm://strongroom/token") == "the next"


@pytest.mark.row("S3.9")
def test_a_field_of_a_secret_is_read(environment: None) -> None:
    boto3.client("secretsmanager").create_secret(Name="fields", SecretString=json.dumps({"token": TOKEN, "n": 1}))
    assert resolve("aws-sm://fields#token") == TOKEN
    for reference in ("aws-sm://fields#other", "aws-sm://fields#n"):
        with pytest.raises(SecretReferenceError, match="is not a JSON object with the text") as caught:
            resolve(reference)
        assert TOKEN not in str(caught.value)


@pytest.mark.row("S3.9")
def test_a_parameter_is_read_and_decrypted(environment: None) -> None:
    parameters = boto3.client("ssm")
    parameters.put_parameter(Name="/strongroom/token", Value=TOKEN, Type="SecureString")
    assert resolve("aws-ssm:///strongroom/token") == TOKEN


@pytest.mark.parametrize("value", ["", "plain", "sr_0000", "aws-token", "https://aws-sm/x", "key=aws-sm://x"])
def test_plain_values_are_themselves(value: str) -> None:
    assert resolve(value) == value


@pytest.mark.parametrize("value", ["aws-sm://", "aws-ssm://", "aws-ssm://name#field", "aws-sm://a b", "aws-sm://#x"])
def test_malformed_references_are_refused(value: str) -> None:
    with pytest.raises(SecretReferenceError, match="is named as"):
        resolve(value)


def test_what_is_missing_binary_or_empty_is_refused_without_a_value(environment: None) -> None:
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="binary", SecretBinary=b"\x00\x01")
    secrets.create_secret(Name="blank", SecretString=" \n")
    secrets.create_secret(Name="not-json", SecretString=TOKEN)
    wrong = {"none": "can't be read", "binary": "is binary", "blank": "is empty", "not-json#token": "not a JSON object"}
    for name, message in wrong.items():
        with pytest.raises(SecretReferenceError, match=message) as caught:
            resolve(f"aws-sm://{name}")
        assert TOKEN not in repr(caught.value)
        assert caught.value.__cause__ is None


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SecretReferenceError, match=r"strongroom\[aws\]"):
        resolve("aws-sm://strongroom/token")
