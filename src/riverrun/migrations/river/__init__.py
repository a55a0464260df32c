"""River's line of migrations, `main`: one module per version.

Source: River 0.51, riverdriver/riverpgxv5/migration/main (facts only, no code).
"""
