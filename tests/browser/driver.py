"""Playwright, which only tests in a browser need; without it they are skipped, or fail in CI."""

import os

import pytest

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip(
        "tests/browser: needs Playwright: pip install 'riverrun[browser]'", allow_module_level=True
    )

__all__ = ["expect", "sync_playwright"]
