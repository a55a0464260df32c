"""River's line of migrations, `main`: one module a version.

Source: River 0.51, riverdriver/riverpgxv5/migration/main, as facts.
"""
