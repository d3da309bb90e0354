# The way of a notebook: sign in, create a key, use it. Each `# %%` is a cell (https://jupytext.readthedocs.io).
# Needs STRONGROOM_URL, and either STRONGROOM_EMAIL (and STRONGROOM_PASSWORD, or it asks) or STRONGROOM_API_KEY.

# %% Who you are. What a cell shows is kept in the notebook: neither password nor key nor token ever is.
import os

import requests

from strongroom.notebook import AUTH_HEADERS, authenticate_user, authenticate_with_api_key, create_api_key

URL = os.environ.get("STRONGROOM_URL", "http://127.0.0.1:8080")

if email := os.environ.get("STRONGROOM_EMAIL"):
    print(authenticate_user(email, os.environ.get("STRONGROOM_PASSWORD")))
else:
    print(authenticate_with_api_key())

# %% A key for the workflows, for ninety days.
api_key = create_api_key(
    name="prefect-workflows",
    description="For Prefect automated workflows",
    permission_set="prefect_workflows",
    expires_in_days=90,
)
print(api_key)  # not the key: that is api_key.key, to be put where the workflows find it

# %% From here on as the workflows.
authenticate_with_api_key(api_key.key)
response = requests.get(f"{URL}/api/v1/caller", headers=AUTH_HEADERS, timeout=30)
response.raise_for_status()
print("this is", response.json()["name"])

# %% A key that is not needed is revoked: here by itself.
requests.post(f"{URL}/api-keys/{api_key.id}/revoke", json={}, headers=AUTH_HEADERS, timeout=30).raise_for_status()
print("and is no more:", requests.get(f"{URL}/api/v1/caller", headers=AUTH_HEADERS, timeout=30).status_code)
