"""Tests of dbconfig, against real databases."""
