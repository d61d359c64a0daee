"""Keeps one engine per profile and database."""
