"""Secrets of a job, derived and never stored: whoever holds the operator's key can tell them again."""

import hashlib
import hmac


def link_secret(key: bytes, uid: str) -> str:
    """What a particle and the synchronizer of the job with this uid prove to each other; hexadecimal."""
    return _derive(key, "link", uid)


def report_token(key: bytes, uid: str) -> str:
    """What a reader of this job's report must show; it opens nothing else; hexadecimal."""
    return _derive(key, "report", uid)


def _derive(key: bytes, purpose: str, uid: str) -> str:
    return hmac.new(key, f"swarm.training/{purpose}/{uid}".encode(), hashlib.sha256).hexdigest()
