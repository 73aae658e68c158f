"""Durable jobs over HTTP: submitted, listed, followed, given up, fetched."""
