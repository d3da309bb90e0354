"""Sign in with an AWS identity: its credentials sign a request, which Strongroom sends on to AWS to learn who signed.

    from strongroom.aws import signed_caller_identity

    request = signed_caller_identity("https://strongroom.example.com", "eu-west-1")
    requests.post("https://strongroom.example.com/api/v1/tokens:aws", json=request).json()["access_token"]

Needs botocore: `pip install 'strongroom[aws]'`.
"""

import secrets
from typing import Any

_BODY = "Action=GetCallerIdentity&Version=2011-06-15"


def signed_caller_identity(server: str, region: str = "", endpoint: str = "") -> dict[str, Any]:
    """A signed `GetCallerIdentity` request, as `SignInWithAws` takes it; good for five minutes, once, at that server.

    Args:
        server: the name that the server goes by: its public URL, unless it was set up with another.
        region: whose STS shall be asked; the global one if empty. The server must know the region.
        endpoint: the URL of another STS.

    Returns:
        `method`, `url`, `headers` and `body`. No secret is in it, but whoever sends it first signs in with it.

    Raises:
        ImportError: botocore is missing.
        botocore.exceptions.NoCredentialsError: there are no AWS credentials where the AWS tools look for them.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import NoCredentialsError
        from botocore.session import Session
    except ImportError:
        raise ImportError("Signing in with AWS needs botocore: pip install 'strongroom[aws]'") from None
    credentials = Session().get_credentials()
    if credentials is None:
        raise NoCredentialsError
    url = endpoint.rstrip("/") + "/" if endpoint else _sts(region)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        "Host": url.partition("://")[2].partition("/")[0],
        "X-Strongroom-Server": server,
        # Else two that sign within a second would sign the same, and the second would count as a replay.
        "X-Strongroom-Nonce": secrets.token_urlsafe(16),
    }
    request = AWSRequest("POST", url, headers, _BODY)
    SigV4Auth(credentials.get_frozen_credentials(), "sts", region or "us-east-1").add_auth(request)
    return {"method": "POST", "url": url, "headers": dict(request.headers.items()), "body": _BODY}


def _sts(region: str) -> str:
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://sts.{region}.amazonaws.com{suffix}/" if region else "https://sts.amazonaws.com/"
