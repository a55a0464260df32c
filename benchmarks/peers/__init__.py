"""Peers of riverrun, each a program for their own environment; see common.py."""
