"""Serves the HTTP application: gunicorn, its socket and its worker, and what it reports to systemd."""
