"""Changes that no test can notice, each with the reason. A name that is no change of its file any more fails a test."""

EQUIVALENT: dict[str, dict[str, str]] = {}
