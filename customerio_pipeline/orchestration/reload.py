"""Asking a running webserver to load the definitions anew, so that a new integration shows up.

Imports no Dagster: the command line uses it and must start fast.
"""

import httpx

from customerio_pipeline.settings import Settings

LOCATION = "customerio_pipeline"
"""Name of the code location in ``workspace.yaml``."""

# Loading takes about three seconds, more on a busy machine.
_TIMEOUT = httpx.Timeout(10.0, connect=1.0)
_MUTATION = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) { __typename }
}
"""


def reload_definitions(settings: Settings) -> bool:
    """Return whether the webserver at `settings.dagster_url` loads the definitions anew.

    False means that none answers there, or that it does not know them.
    """
    request = {"query": _MUTATION, "variables": {"location": LOCATION}}
    try:
        response = httpx.post(f"{settings.dagster_url}/graphql", json=request, timeout=_TIMEOUT)
        response.raise_for_status()
        answer = response.json()
        kind = answer["data"]["reloadRepositoryLocation"]["__typename"]
    except httpx.ReadTimeout:
        return True  # a busy one: it goes on loading
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
    return bool(kind == "WorkspaceLocationEntry")
