"""The gateway's HTTP pages: health, readiness, metrics and status (docs/http.md)."""
