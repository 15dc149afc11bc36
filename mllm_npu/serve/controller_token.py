"""Tell workers from others: by the shared token, or by their being on this machine."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.security import TOKEN_VARIABLE, ApiKeys


class TokenCheck:
    """Refuses whoever is no worker; without a token whoever is not on this machine.

    Args:
        token: that workers and controller share.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        self._known = ApiKeys([token] if token else [])

    async def __call__(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            ApiError: it does not come from a worker.
        """
        if self.token is None:
            host = request.client.host if request.client else ""
            if not is_loopback(host):
                raise ApiError(
                    f"A worker at {host} wants to register, this controller has no token and takes "
                    f"workers of its own machine only. Give both the same {TOKEN_VARIABLE}.",
                    status=403,
                    code="token_needed",
                )
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self._known.admit(given.strip()):
            raise ApiError(
                "The token of the workers is needed, this request has another or none. Give "
                f"controller and worker the same {TOKEN_VARIABLE}.",
                status=401,
                code="invalid_token",
            )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
