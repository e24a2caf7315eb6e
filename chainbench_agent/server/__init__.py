"""Serves the HTTP application: gunicorn, its socket and its worker, and notifications to systemd."""
